// The controls, the keys and the colours; and the first drawing.

const BESIDE_ROWS = new Set(["at", "before", "after", "split", "mask"]); // what the rows don't depend on
const THEMES = ["auto", "light", "dark"];

/** The one way in which what is shown changes. */
function change(changes) {
  Object.assign(state, changes);
  if (changes.group !== undefined) { // the other one has other types, scores and methods
    Object.assign(state, { type: "", score: "", of: "", minus: "", hide: [], before: "", after: "" });
  }
  writeAddress();
  draw();
}

let drawn = "";

/** Brings the page to the state; the rows only where they change. */
function draw() {
  find("mask").checked = state.mask;
  find("sheet").classList.toggle("masked", state.mask);
  const wanted = JSON.stringify(Object.entries(state).filter(([name]) => !BESIDE_ROWS.has(name)));
  if (wanted !== drawn) drawSheet();
  drawn = wanted;
  drawViewer();
}

function drawSheet() {
  const group = currentGroup();
  document.title = group.title;
  find("group-title").textContent = data.groups.length > 1 ? "" : `${group.title} · ${group.suite}`;
  find("facts").textContent = group.facts;
  drawControls(group);
  drawRows(group);
}

function drawControls(group) {
  const methods = group.methods.map(({ label }) => ({ value: label, text: label }));
  fill(find("group"), data.groups.map((each) => ({ value: each.key, text: `${each.title} · ${each.suite}` })));
  const types = group.type.map((value, number) => {
    return { value, text: `${value} (${group.types.filter((type) => type === number).length})` };
  });
  const scores = group.columns.map((column) => ({ value: column.key, text: column.full }));
  fill(find("type"), [{ value: "", text: "all" }, ...types]);
  fill(find("score"), [{ value: "", text: "id" }, ...scores]);
  fill(find("of"), methods);
  fill(find("minus"), [{ value: "", text: "nothing" }, ...methods]);
  find("group").hidden = data.groups.length < 2;
  find("type-label").hidden = !group.type.length;
  find("score-label").hidden = find("all-label").hidden = !group.columns.length;
  find("mask-label").hidden = !group.mask;
  document.querySelectorAll(".sorting").forEach((label) => { label.hidden = !state.score; });
  for (const name of ["group", "type", "score", "minus", "order"]) find(name).value = state[name];
  find("of").value = group.methods[methodNumber(group, state.of)].label;
  if (document.activeElement !== find("find")) find("find").value = state.find;
  if (document.activeElement !== find("k")) find("k").value = state.k || "";
  find("all").checked = state.all;
  drawColumnList(group);
}

function drawColumnList(group) {
  const held = [...find("column-list").querySelectorAll("input")].indexOf(document.activeElement);
  find("column-list").replaceChildren(...group.methods.map(({ label, note }) => {
    const box = make("input", { type: "checkbox", checked: !state.hide.includes(label) });
    box.addEventListener("change", () => {
      const hide = state.hide.filter((each) => each !== label);
      if (!box.checked) hide.push(label);
      change({ hide: hide.length < group.methods.length ? hide : [] });
    });
    return make("label", { className: "check", title: note }, box, " " + label);
  }));
  if (held >= 0) find("column-list").querySelectorAll("input")[held]?.focus();
}

for (const name of ["type", "score", "of", "minus", "order", "group"]) {
  find(name).addEventListener("change", () => change({ [name]: find(name).value }));
}
for (const name of ["mask", "all"]) find(name).addEventListener("change", () => change({ [name]: find(name).checked }));
find("find").addEventListener("input", () => change({ find: find("find").value.trim() }));
find("k").addEventListener("input", () => change({ k: Math.max(0, Number.parseInt(find("k").value, 10) || 0) }));

function reset() {
  document.activeElement.blur();
  change({ ...DEFAULTS, group: state.group, hide: [] });
}
find("reset").addEventListener("click", reset);
find("reset-too").addEventListener("click", reset);
find("fold").addEventListener("click", () => {
  const open = find("tools").classList.toggle("open");
  find("fold").setAttribute("aria-expanded", String(open));
});
find("help-open").addEventListener("click", () => find("help").showModal());
document.addEventListener("click", (event) => {
  if (!find("columns").contains(event.target)) find("columns").open = false;
});
find("rows").addEventListener("focusin", (event) => {
  if (event.target.matches("[role=gridcell] > button")) followFocus(event.target);
});

function remembered() {
  try {
    return localStorage.getItem("gallery-theme");
  } catch {
    return null; // storage is off: the theme lasts as long as the page
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = `◐ ${theme}`;
  find("theme").setAttribute("aria-label", `Colours: ${theme}`);
  try {
    localStorage.setItem("gallery-theme", theme);
  } catch {
    // as above
  }
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
find("theme").addEventListener("click", nextTheme);

const MOVES = { ArrowUp: [-1, 0], k: [-1, 0], ArrowDown: [1, 0], j: [1, 0], ArrowLeft: [0, -1], h: [0, -1], ArrowRight: [0, 1], l: [0, 1] };

function sheetKey(key) {
  if (MOVES[key]) {
    const inside = find("rows").contains(document.activeElement); // the first key only puts the cursor there
    const [rows, cells] = inside ? MOVES[key] : [0, 0];
    focusCell(cursor.row + rows, cursor.cell + cells);
  } else if (key === "Home") focusCell(0, cursor.cell);
  else if (key === "End") focusCell(order.length - 1, cursor.cell);
  else if (key === "/") {
    find("tools").classList.add("open");
    find("find").focus();
  } else if (key === "s") change({ all: !state.all });
  else return false;
  return true;
}

function viewerKey(key) {
  if (key === "j") stepSample(1);
  else if (key === "k") stepSample(-1);
  else if (key === "l") stepMethod(1);
  else if (key === "h") stepMethod(-1);
  else if (key === " ") change({ split: state.split > 50 ? 0 : 100 });
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
  const field = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  if (field) {
    if (event.key === "Escape" && !viewer.open) event.target.blur();
    return;
  }
  if (event.key === " " && event.target.matches("button, summary, input[type=checkbox]")) return;
  const handled = (viewer.open ? viewerKey : sheetKey)(event.key);
  if (handled) event.preventDefault();
  else if (event.key === "m") change({ mask: !state.mask });
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") find("help").showModal();
});

function fromAddress() {
  readAddress();
  draw();
}

addEventListener("popstate", fromAddress);
addEventListener("resize", () => {
  const first = rowElements.get(order[0]);
  if (first) find("sheet").style.setProperty("--row-height", first.offsetHeight + "px");
});
setTheme(THEMES.includes(remembered()) ? remembered() : "auto");
fromAddress();
