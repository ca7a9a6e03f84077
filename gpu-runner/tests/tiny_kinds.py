"""The kinds of causal language models that transformers builds, of which tiny checkpoints are tried in every container.

Encoders and decoders of pairs (BERT, BART and their kin) are left out, and what answers with something else than text.
"""

KINDS = (
    *("afmoe", "apertus", "arcee", "aria_text", "axk1", "axk2", "bamba", "biogpt", "bitnet", "bloom", "codegen"),
    *("cohere", "cohere2", "cohere2_moe", "cwm", "dbrx", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4"),
    *("diffllama", "doge", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon", "falcon_h1"),
    *("falcon_mamba", "flex_olmo", "gemma", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "glm", "glm4"),
    *("glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj"),
    *("granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared", "helium"),
    *("hrm_text", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hy_v4", "hyperclovax", "inkling_text", "jais2"),
    *("jamba", "jetmoe", "kimi_linear", "laguna", "lfm2", "lfm2_moe", "llama", "llama4_text", "longcat_flash"),
    *("mamba", "mamba2", "mellum", "mimo_v2_flash", "minicpm3", "minimax", "minimax_m2", "minimax_m3_vl_text"),
    *("ministral", "ministral3", "mistral", "mixtral", "modernbert-decoder", "mpt", "nanochat", "nemotron"),
    *("nemotron_h", "olmo", "olmo2", "olmo3", "olmo_hybrid", "olmoe", "openai-gpt", "opt", "persimmon", "phi", "phi3"),
    *("phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next"),
    *("recurrent_gemma", "rwkv", "seed_oss", "smollm3", "solar_open", "stablelm", "starcoder2", "vaultgemma", "xglm"),
    *("xlstm", "youtu", "zamba2", "zaya"),
    # With images.
    *("gemma3", "llama4", "llava", "mistral3", "qwen3_5", "qwen3_vl"),
    # Forms that are released beside the usual one.
    *("llama:tied", "llama:biased", "qwen2:tied", "qwen2:yarn", "qwen3:tied", "qwen3:yarn", "granite:untied"),
    *("stablelm:biased", "smollm3:untied", "gemma4_text:dense"),
    # Released quantized.
    *("qwen3:float8", "qwen3_moe:float8", "deepseek_v3:float8", "gpt_oss:mxfp4"),
)
