// The page where a published file is tried: hands what is written to the worker, and shows what comes back.
const form = document.querySelector("[data-try]");

if (form !== null) {
	const button = form.querySelector("button");
	const state = document.getElementById("try-state");
	const output = document.getElementById("try-output");
	const model = JSON.parse(form.dataset.try);
	const worker = new Worker(form.dataset.worker, { type: "module" });
	let written = "";
	form.hidden = false;

	worker.addEventListener("message", ({ data: { kind, value } }) => {
		if (kind === "progress") state.textContent = `Fetching the files: ${Math.round(value * 100)} %`;
		else if (kind === "state") state.textContent = value;
		else if (kind === "text") output.textContent = value;
		else if (kind === "done") {
			const rate = value.seconds > 0 ? value.tokens / value.seconds : 0;
			state.textContent = `${value.tokens} tokens in ${value.seconds.toFixed(1)} s, ${rate.toFixed(1)} a second, in this browser.`;
		} else state.textContent = `It did not work: ${value}`;
		if (kind === "done" || kind === "failed") button.disabled = false;
	});
	worker.addEventListener("error", () => {
		state.textContent = "It did not work: this browser does not start the program.";
		button.disabled = false;
	});
	form.addEventListener("submit", (event) => {
		event.preventDefault();
		written = form.elements.text.value;
		button.disabled = true;
		output.textContent = "";
		state.textContent = "Fetching the files…";
		document.getElementById("try-asked").textContent = written;
		worker.postMessage({ model, text: written });
	});
}
