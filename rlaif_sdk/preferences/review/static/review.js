// The review page: one pair at a time, judged by key. Everything that comes from data is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const other = { left: "right", right: "left" };

let reviewer = localStorage.getItem("reviewer") ?? "";
let pair = null;
let shownAt = 0;
let busy = false;

async function ask(route, body = {}) {
  const response = await fetch(`/api/${route}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Review-Token": token },
    body: JSON.stringify(body),
  });
  if (!response.ok) {
    const { detail } = await response.json().catch(() => ({}));
    throw new Error(typeof detail === "string" ? detail : `the server answers ${response.status}`);
  }
  return response;
}

/** Run one request at a time, so that a key held down cannot judge two pairs; an error is shown and loses nothing. */
async function once(action) {
  if (busy) return;
  busy = true;
  document.body.toggleAttribute("aria-busy", true);
  try {
    await action();
  } catch (error) {
    notify(error instanceof TypeError ? "The server is out of reach. Try again." : error.message, true);
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function notify(text, isError = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("error", isError);
  $("notice").hidden = !text;
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function turnElements(turns) {
  return turns.map(({ role, text }) => {
    const turn = element("p", "", "turn");
    if (role !== null && (turns.length > 1 || role !== "assistant")) turn.append(element("span", role, "role"));
    turn.append(text);
    return turn;
  });
}

const percent = (share) => `${Math.round(100 * share)} %`;

function preferenceText({ preference, prob_left: left }) {
  if (preference === "tie") return `tie (left ${percent(left)})`;
  return `${preference} (${percent(preference === "left" ? left : 1 - left)})`;
}

function show(state) {
  const { progress } = state;
  const changed = state.pair?.id !== pair?.id;
  pair = state.pair;
  $("bar").max = progress.pairs;
  $("bar").value = progress.judged;
  $("counts").textContent = `${progress.judged} of ${progress.pairs} judged, ${progress.mine} by you`;
  $("pair").hidden = $("actions").hidden = !pair;
  $("done").hidden = Boolean(pair);
  for (const button of document.querySelectorAll("footer button")) {
    const key = button.dataset.key;
    button.disabled = (key === "a" && !pair?.ai) || (key === "f" && (!pair?.ai || pair.ai.preference === "tie"));
  }
  if (!pair) return;
  $("prompt-section").hidden = !pair.prompt.length;
  $("prompt").replaceChildren(...turnElements(pair.prompt));
  for (const side of ["left", "right"]) {
    $(side).replaceChildren(...turnElements(pair[side]));
    $(`${side}-response`).classList.toggle("preferred", pair.ai?.preference === side);
  }
  showLabels(pair.ai);
  $("edits").hidden = !pair.edits.length;
  $("edit-list").replaceChildren(...pair.edits.map((text) => element("p", text)));
  if (changed) {
    $("comment").value = "";
    $("comment-form").hidden = true;
    $("prompt-section").scrollTop = $("prompt-section").scrollHeight;
    scrollTo(0, 0);
    shownAt = performance.now();
  }
}

function showLabels(ai) {
  $("ai").hidden = !ai;
  if (!ai) return;
  $("ai-preference").textContent = `The judge says: ${preferenceText(ai)}`;
  $("ai-left").style.flexGrow = ai.prob_left;
  $("ai-right").style.flexGrow = 1 - ai.prob_left;
  const notes = [];
  if (ai.labels.some((label) => label.flipped)) notes.push("its preference changes with the order");
  if (ai.labels.length > 1) {
    notes.push(`${ai.labels.length} labels: left ${ai.labels.map((label) => percent(label.prob_left)).join(", ")}`);
  }
  $("ai-notes").textContent = notes.join("; ");
  const rationales = ai.labels.flatMap((label) => label.rationales);
  $("ai-reasons").hidden = !rationales.length;
  $("rationales").replaceChildren(...rationales.map(({ text, first }) => {
    const shown = element("p", "");
    if (first) shown.append(element("span", `Its response 1 is the ${first} one, 2 the ${other[first]} one.`, "role"));
    shown.append(text);
    return shown;
  }));
}

const judge = (choice) => once(async () => {
  if (!pair) return;
  const comment = $("comment").value.trim();
  const seconds = (performance.now() - shownAt) / 1000;
  const response = await ask("judge", { reviewer, pair: pair.id, choice, comment, seconds });
  const state = await response.json();
  pair = null;
  show(state);
  const { ai } = state.last;
  const said = ai.preference && choice !== "skip" ? `, the judge: ${preferenceText(ai)}` : "";
  notify(`Kept: ${choice}${said}. Undo with u.`);
});

const undo = () => once(async () => {
  const state = await (await ask("undo", { reviewer })).json();
  show(state);
  notify(state.undone ? `Taken back: ${state.undone}.` : "There is nothing to take back.");
});

const keepEdit = () => once(async () => {
  const base = document.querySelector("input[name=base]:checked").value;
  const body = { reviewer, pair: pair.id, based_on: base === "new" ? null : base, text: $("edit-text").value };
  show(await (await ask("edit", { ...body, comment: $("comment").value.trim() })).json());
  notify("Kept: your response. This pair still waits for your verdict.");
});

function beginWith(base) {
  $("edit-text").value = base === "new" ? "" : pair[base].at(-1).text;
}

function openEdit() {
  if (!pair) return;
  const base = pair.ai && pair.ai.preference !== "tie" ? pair.ai.preference : "left";
  document.querySelector(`input[name=base][value=${base}]`).checked = true;
  beginWith(base);
  $("edit-dialog").returnValue = "cancel";
  $("edit-dialog").showModal();
  $("edit-text").focus();
}

function openComment() {
  $("comment-form").hidden = false;
  $("comment").focus({ preventScroll: true });
  $("comment").scrollIntoView({ block: "center" }); // the bar of keys would cover it at the page's end
}

const openEstimates = () => once(async () => {
  const { estimates, progress } = await (await ask("estimates", { reviewer })).json();
  const rows = [
    ["judge and people", estimates.ai],
    ["judge and people, random sample", estimates.ai_audit],
    ...estimates.ai_by_reviewer.map((found) => [`judge and ${found.reviewer}`, found]),
    ...estimates.reviewers.map((found) => [found.reviewers.join(" and "), found]),
  ];
  const table = document.createElement("table");
  table.append(row("th", ["", "pairs", "accuracy", "Cohen’s kappa", "chose left"]));
  for (const [name, found] of rows) {
    const left = found.left_share == null ? "" : percent(found.left_share);
    table.append(row("td", [name, found.items, withInterval(found.accuracy), withInterval(found.kappa), left]));
  }
  const counts = `${progress.verdicts} verdicts, ${progress.skipped} skipped, ${progress.edits} responses written. `;
  const note = "The queue brings doubtful pairs first; the random sample tells of all labels. Intervals are of 95 %.";
  $("estimates").replaceChildren(table, element("p", counts + note));
  $("estimates-dialog").showModal();
});

function row(cell, texts) {
  const made = document.createElement("tr");
  made.append(...texts.map((text) => element(cell, text)));
  return made;
}

function withInterval({ value, low, high }) {
  if (value === null) return "–";
  return low === null ? value.toFixed(2) : `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
}

const download = () => once(async () => {
  const address = URL.createObjectURL(await (await ask("export")).blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = "reviewed.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
});

const keys = {
  a: () => pair?.ai && judge(pair.ai.preference),
  f: () => pair?.ai && pair.ai.preference !== "tie" && judge(other[pair.ai.preference]),
  ArrowLeft: () => judge("left"), 1: () => judge("left"),
  ArrowRight: () => judge("right"), 2: () => judge("right"),
  t: () => judge("tie"), 0: () => judge("tie"),
  s: () => judge("skip"),
  e: openEdit,
  c: openComment,
  u: undo,
  g: openEstimates,
  "?": () => $("help-dialog").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, input");
  if (event.target.id === "comment" && event.key === "Escape") event.target.blur();
  if (event.target.id === "edit-text" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    $("edit-dialog").close("ok");
    event.preventDefault();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) {
    return;
  }
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});

for (const button of document.querySelectorAll("footer button")) {
  button.addEventListener("click", () => {
    button.blur();
    keys[button.dataset.key]();
  });
}
$("export-button").addEventListener("click", download);
$("estimates-button").addEventListener("click", openEstimates);
$("help-button").addEventListener("click", keys["?"]);
for (const radio of document.querySelectorAll("input[name=base]")) {
  radio.addEventListener("change", () => beginWith(radio.value));
}
$("edit-dialog").addEventListener("close", () => {
  if ($("edit-dialog").returnValue === "ok") keepEdit();
});
$("name-dialog").addEventListener("close", () => {
  reviewer = $("name").value.trim();
  if (!reviewer) {
    $("name-dialog").showModal();
    return;
  }
  localStorage.setItem("reviewer", reviewer);
  begin();
});
$("who").addEventListener("click", () => $("name-dialog").showModal());

const begin = () => once(async () => {
  $("who").textContent = reviewer;
  show(await (await ask("next", { reviewer })).json());
  notify("");
});

if (reviewer) begin();
else $("name-dialog").showModal();
