// Replaces the parts of the job page as the server renders them anew. Without this script the page reloads itself.
const root = document.querySelector("[data-live]");

/** What may be done to the job now, as the page itself says: its forms are for who looks, and in no stream. */
async function renewActions() {
	const actions = document.getElementById("part-actions");
	if (actions === null) return;
	const answer = await fetch(location.pathname, { headers: { Accept: "text/html" } });
	if (!answer.ok) return;
	const page = new DOMParser().parseFromString(await answer.text(), "text/html");
	const fresh = page.getElementById("part-actions");
	if (fresh !== null && !actions.contains(document.activeElement)) actions.replaceChildren(...fresh.childNodes);
}

if (root !== null) {
	const note = document.getElementById("live-note");
	const source = new EventSource(root.dataset.live);
	source.addEventListener("parts", (message) => {
		const parts = JSON.parse(message.data);
		for (const [id, markup] of Object.entries(parts)) {
			const element = document.getElementById(id);
			// A part that holds the focus is left alone until the reader is done with it.
			if (element !== null && !element.contains(document.activeElement) && element.innerHTML !== markup) {
				element.innerHTML = markup;
				// The tab tells of the state too.
				if (id === "part-title") {
					document.title = `${element.textContent} · yaqa-bot`;
					renewActions();
				}
			}
		}
		if (note !== null) note.textContent = "This page follows the job.";
	});
	source.addEventListener("end", () => {
		source.close();
		if (note !== null) note.textContent = "The job has ended.";
	});
	source.addEventListener("error", () => {
		if (note !== null && source.readyState !== EventSource.CLOSED) {
			note.textContent = "The connection was lost; trying again.";
		}
	});
}
