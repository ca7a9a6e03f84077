"""What a person does with nothing but the stock Python client: ask, watch the answer change, follow the link, load.

Usage: HF_ENDPOINT=… HF_TOKEN=… a_person.py MODEL_FOLDER REPO

The last line of stdout is a JSON document of what was seen.
"""

import json
import re
import sys
import time
from pathlib import Path

import torch
from huggingface_hub import DiscussionComment, HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer

BOT = "yaqa-bot"
PATIENCE_SECONDS = 240


def answers(api: HfApi, repo: str, number: int) -> list[DiscussionComment]:
    """The bot's visible comments."""
    events = api.get_discussion_details(repo, number).events
    return [event for event in events if isinstance(event, DiscussionComment) and event.author == BOT]


def watch(api: HfApi, repo: str, number: int) -> tuple[str, list[str]]:
    """The id of the one answer and every text it had, up to the last one."""
    texts: list[str] = []
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        found = answers(api, repo, number)
        if len(found) > 1:
            raise SystemExit(f"{len(found)} answers instead of one.")
        for answer in found:
            if not texts or texts[-1] != answer.content:
                texts.append(answer.content)
            if "**Done**" in answer.content:
                return answer.id, texts
            if "**This failed**" in answer.content:
                raise SystemExit(answer.content)
        time.sleep(0.1)
    raise SystemExit(f"No result in {PATIENCE_SECONDS} s; the last answer: {texts[-1:]}")


def main(folder: Path, repo: str) -> None:
    """Publish the model, ask for a variant in a discussion, load what comes."""
    api = HfApi()
    api.create_repo(repo)
    # Pushes are left alone by the owner's own word: what is made here was asked for.
    api.upload_file(path_or_fileobj=b"enabled: false\n", path_in_repo=".yaqa-bot.yaml", repo_id=repo)
    api.upload_folder(folder_path=folder, repo_id=repo)
    discussion = api.create_discussion(repo, title="An 8-bit file, please")
    asked = api.comment_discussion(repo, discussion.num, f"Hello!\n\n@{BOT} 8bit gguf please")
    answer, texts = watch(api, repo, discussion.num)

    link = re.search(r"\| `gguf:q8_0` \| \[([^\]]+)\]\(([^)]+)\) \| ([^|]+) \| ([^|]+) \|", texts[-1])
    if link is None:
        raise SystemExit(f"The answer has no link: {texts[-1]}")
    variant, address, size, kl = link.groups()
    variant = variant.replace("\\", "")
    [file] = [path for path in api.list_repo_files(variant) if path.endswith(".gguf") and "/" not in path]
    tokenizer = AutoTokenizer.from_pretrained(variant, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(variant, gguf_file=file, dtype=torch.float32)
    original = AutoModelForCausalLM.from_pretrained(repo, dtype=torch.float32)
    inputs = tokenizer("The sea was calm, and", return_tensors="pt").input_ids
    with torch.no_grad():
        got = model(inputs).logits.log_softmax(-1)
        want = original(inputs).logits.log_softmax(-1)
    seen = {
        "asked": asked.id,
        "answer": answer,
        "firstWords": [text.split("**")[1] for text in texts],
        "trailer": "<!-- yaqa-bot: {" in texts[-1],
        "variant": variant,
        "address": address,
        "size": size,
        "kl": kl,
        "card": api.model_info(variant).card_data.base_model,
        "measuredKl": (want.exp() * (want - got)).sum(-1).mean().item(),
        "uniformKl": (want.exp() * (want + torch.tensor(want.shape[-1]).log())).sum(-1).mean().item(),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
