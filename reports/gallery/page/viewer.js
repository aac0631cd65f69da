// One sample in large: two pictures below a slider, the texts, and all methods' scores.

const viewer = find("viewer");

function openViewer(sample, changes) {
  Object.assign(state, { at: currentGroup().ids[sample], ...changes });
  writeAddress(true);
  drawViewer();
}

function closeViewer() {
  if (!state.at) return;
  const place = order.indexOf(currentGroup().ids.indexOf(state.at));
  const cell = currentGroup().inputs.length + shownMethods(currentGroup()).indexOf(afterMethod(currentGroup()));
  Object.assign(state, { at: "", split: DEFAULTS.split });
  writeAddress();
  drawViewer();
  if (place >= 0) focusCell(place, cell);
}

const afterMethod = (group) => {
  const shown = shownMethods(group);
  const chosen = group.methods.findIndex((method) => method.label === state.after);
  return chosen >= 0 ? chosen : shown.includes(group.baseline) ? group.baseline : shown[0];
};

/** What stands on the left of the slider: {title, folder, method: its number, or -1 for an input}. */
function beforePicture(group) {
  const title = state.before || group.inputs[0]?.title;
  const input = group.inputs.find((each) => each.title === title);
  if (input) return { ...input, method: -1 };
  const chosen = group.methods.findIndex((method) => method.label === title);
  const method = chosen >= 0 ? chosen : group.methods.findIndex((_, number) => number !== afterMethod(group));
  const { label, folder } = group.methods[Math.max(method, 0)];
  return { title: label, folder, method: Math.max(method, 0) };
}

function drawViewer() {
  if (!state.at) {
    if (viewer.open) viewer.close();
    return;
  }
  const group = currentGroup();
  const sample = group.ids.indexOf(state.at);
  const place = order.indexOf(sample);
  const where = place < 0 ? "not among the samples shown" : `${place + 1} of ${order.length}`;
  const facts = [group.ids[sample], group.type[group.types[sample]], where];
  find("viewer-place").textContent = facts.filter(Boolean).join(" · ");
  find("viewer-title").textContent = group.texts[0]?.[sample] ?? group.ids[sample];
  const texts = group.texts.slice(1).map((each, number) => [group.labels[number + 1], each[sample]]);
  const notes = Object.entries(group.notes[afterMethod(group)][sample] ?? {});
  find("texts").replaceChildren(...[...texts, ...notes].flatMap(([label, text]) => [
    make("dt", { textContent: label }),
    make("dd", { textContent: text }),
  ]));
  find("previous").disabled = place <= 0;
  find("next").disabled = place < 0 || place === order.length - 1;
  drawStage(group, sample);
  drawScores(group, sample);
  if (!viewer.open) {
    viewer.showModal();
    find("slider").focus();
  }
}

function drawStage(group, sample) {
  const before = beforePicture(group);
  const after = afterMethod(group);
  const error = group.errors[after][sample];
  const missing = before.method >= 0 && group.errors[before.method][sample] !== undefined;
  setPicture(find("before-image"), group, before.folder, sample, before.title, missing);
  setPicture(find("after-image"), group, group.methods[after].folder, sample, group.methods[after].label, error !== undefined);
  find("after-missing").hidden = error === undefined;
  find("after-missing").textContent = error === undefined ? "" : group.reasons[error];
  find("before-tag").textContent = before.title;
  find("after-tag").textContent = group.methods[after].label;
  const titles = [...group.inputs.map((input) => input.title), ...group.methods.map((method) => method.label)];
  fill(find("before"), titles.map((title) => ({ value: title, text: title })));
  fill(find("after"), group.methods.map(({ label }) => ({ value: label, text: label })));
  find("before").value = before.title;
  find("after").value = group.methods[after].label;
  find("viewer-mask-label").hidden = !group.mask;
  find("viewer-mask").checked = state.mask;
  find("mask-image").hidden = !(group.mask && state.mask);
  if (group.mask && state.mask) find("mask-image").src = address(group, "full", group.mask, sample);
  else find("mask-image").removeAttribute("src");
  drawSplit();
}

function setPicture(image, group, folder, sample, title, missing) {
  image.hidden = missing;
  image.className = group.side <= 128 ? "pixels" : "";
  image.alt = `${title} of ${group.ids[sample]}`;
  if (missing) image.removeAttribute("src");
  else image.src = address(group, "full", folder, sample);
}

function drawSplit() {
  find("slider").value = state.split;
  find("slider").setAttribute("aria-valuetext", `${state.split}% ${find("before-tag").textContent}`);
  find("stage").style.setProperty("--split", state.split + "%");
}

function drawScores(group, sample) {
  find("scores").hidden = !group.columns.length;
  const every = group.methods.map((_, number) => number);
  const best = group.columns.map((_, c) => bestMethods(group, c, sample, every));
  const titles = group.columns.map(({ title, full }) => make("th", { scope: "col", textContent: title, title: full }));
  const head = make("tr", {}, make("th", { scope: "col", textContent: "Method" }), ...titles);
  const rows = every.map((m) => {
    const { label } = group.methods[m];
    const current = m === afterMethod(group);
    const button = make("button", { type: "button", textContent: label, "aria-pressed": String(current) });
    button.addEventListener("click", () => change({ after: label }));
    const cells = group.columns.map((_, c) => {
      const textContent = printed(group.scores[c][m][sample]);
      return make("td", { className: best[c].includes(m) ? "best" : "", textContent, title: whyUndefined(group, c, m, sample) });
    });
    return make("tr", { className: current ? "current" : "" }, make("th", { scope: "row" }, button), ...cells);
  });
  const held = find("scores").contains(document.activeElement) ? afterMethod(group) : -1;
  find("scores").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  if (held >= 0) find("scores").querySelectorAll("tbody button")[held].focus();
  const named = group.columns.filter((column) => column.full !== column.title).map((column) => column.full);
  find("networks").textContent = named.length ? "Scored by other than the official networks: " + named.join(", ") + "." : "";
}

/** The sample `step` places on in the order of the sheet. */
function stepSample(step) {
  const place = order.indexOf(currentGroup().ids.indexOf(state.at)) + step;
  if (place >= 0 && place < order.length) change({ at: currentGroup().ids[order[place]] });
}

function stepMethod(step) {
  const group = currentGroup();
  const shown = shownMethods(group);
  const place = shown.indexOf(afterMethod(group)) + step;
  if (place >= 0 && place < shown.length) change({ after: group.methods[shown[place]].label });
}

find("slider").addEventListener("input", () => {
  state.split = Number(find("slider").value);
  drawSplit();
});
find("slider").addEventListener("change", () => writeAddress());
find("before").addEventListener("change", () => change({ before: find("before").value }));
find("after").addEventListener("change", () => change({ after: find("after").value }));
find("viewer-mask").addEventListener("change", () => change({ mask: find("viewer-mask").checked }));
find("previous").addEventListener("click", () => stepSample(-1));
find("next").addEventListener("click", () => stepSample(1));
find("close").addEventListener("click", closeViewer);
viewer.addEventListener("close", closeViewer); // by Esc
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) closeViewer(); // beside the sheet
});
