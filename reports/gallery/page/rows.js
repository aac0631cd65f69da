// The sheet: a row for each sample, filled when it comes near the window, a cell for each input and method.

const ROW_TEXTS = 3; // the viewer has all

let order = []; // the samples' numbers, in the order shown
let rowElements = new Map();
let watcher = null;
const cursor = { row: 0, cell: 0 }; // the cell that the Tab key reaches

function drawHead(group, methods) {
  const column = shownColumn(group);
  const about = column < 0 ? "no scores of single images" : group.columns[column].full;
  const info = make("div", { role: "columnheader", className: "info" }, make("span", { className: "soft", textContent: about }));
  if (state.score) info.append(make("b", { textContent: group.methods[methodNumber(group, state.of)].label + (state.minus ? ` − ${state.minus}` : "") }));
  const cells = [info];
  for (const input of group.inputs) {
    cells.push(make("div", { role: "columnheader", className: "input" }, make("span", { textContent: input.title })));
  }
  for (const m of methods) {
    const { label, note } = group.methods[m];
    const sorted = state.score !== "" && methodNumber(group, state.of) === m;
    const ascending = column >= 0 && group.columns[column].higher === (state.order === "worst");
    const title = column < 0 ? note : `Sort by ${label}` + (note ? ` (${note})` : "");
    const button = make("button", { type: "button", textContent: label, disabled: column < 0, title });
    button.addEventListener("click", () => sortByMethod(group, label, column));
    const cell = make("div", { role: "columnheader", "aria-sort": sorted ? (ascending ? "ascending" : "descending") : "none" }, button);
    if (note) cell.append(make("small", { textContent: note.includes("done") ? note.split("; ").at(-1) : "reference" }));
    cells.push(cell);
  }
  find("head").replaceChildren(...cells);
  find("sheet").style.setProperty("--inputs", group.inputs.length);
  find("sheet").style.setProperty("--methods", methods.length);
}

function sortByMethod(group, label, column) {
  const again = state.score && state.of === label && !state.minus;
  change({ score: group.columns[column].key, of: label, minus: "", order: again && state.order === "best" ? "worst" : "best" });
}

function drawRows(group) {
  const methods = shownMethods(group);
  const chosen = chosenSamples(group);
  const focused = find("rows").contains(document.activeElement);
  const current = order[cursor.row];
  order = chosen.samples;
  drawHead(group, methods);
  watcher?.disconnect();
  watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fillRow(group, methods, entry.target);
  }, { root: find("sheet"), rootMargin: "600px 0px" });
  rowElements = new Map(order.map((sample, place) => [sample, make("div", { role: "row", className: "row", "aria-rowindex": place + 2 })]));
  for (const [sample, row] of rowElements) {
    row.sample = sample;
    watcher.observe(row);
  }
  cursor.row = Math.max(0, order.indexOf(current));
  find("rows").replaceChildren(...rowElements.values());
  order.slice(0, 4).forEach((sample) => fillRow(group, methods, rowElements.get(sample)));
  const first = rowElements.get(order[0]);
  if (first) find("sheet").style.setProperty("--row-height", first.offsetHeight + "px");
  find("sheet").setAttribute("aria-rowcount", order.length + 1);
  find("nothing").hidden = order.length > 0;
  const undefinedNote = chosen.undefinedCount ? `, the last ${chosen.undefinedCount} without a value` : "";
  find("count").textContent = `${order.length} of ${group.ids.length} samples${undefinedNote}`;
  if (focused) focusCell(cursor.row, cursor.cell);
}

function fillRow(group, methods, row) {
  if (row.firstChild) return;
  const sample = row.sample;
  row.append(infoCell(group, sample));
  for (const input of group.inputs) row.append(inputCell(group, sample, input));
  const column = shownColumn(group);
  const best = column < 0 ? [] : bestMethods(group, column, sample, methods);
  for (const m of methods) row.append(methodCell(group, sample, m, column, best.includes(m), methods));
  if (order[cursor.row] === sample) cellsOf(row)[cursor.cell]?.setAttribute("tabindex", "0");
  watcher.unobserve(row);
}

function infoCell(group, sample) {
  const info = make("div", { role: "rowheader", className: "info" });
  const facts = make("p", { className: "facts" });
  if (state.score) {
    const value = sortValue(group, sample);
    facts.append(make("b", { textContent: state.minus && value !== null ? signed(value) : printed(value), title: "what it is sorted by" }));
  }
  facts.append(make("span", { className: "id", textContent: group.ids[sample] }));
  if (group.type.length) facts.append(make("span", { className: "kind", textContent: group.type[group.types[sample]] }));
  info.append(facts);
  group.texts.slice(0, ROW_TEXTS).forEach((texts, number) => {
    const label = make("span", { className: number ? "label" : "hidden", textContent: group.labels[number] + ": " });
    info.append(make("p", { className: number ? "text" : "text first", title: texts[sample] }, label, texts[sample]));
  });
  return info;
}

function picture(group, column, sample, alt) {
  const size = group.small && column !== group.mask ? "small" : "full";
  const className = group.side <= 128 && column !== group.mask ? "pixels" : "";
  const src = address(group, size, column, sample);
  return make("img", { src, alt, className, loading: "lazy", decoding: "async", draggable: false });
}

function inputCell(group, sample, input) {
  const spoken = `${input.title} of ${group.ids[sample]}`;
  const image = picture(group, input.folder, sample, input.title);
  const button = make("button", { type: "button", tabIndex: -1, "aria-label": spoken }, image);
  if (group.mask && input === group.inputs[0]) button.append(make("span", { className: "over" }, picture(group, group.mask, sample, "the mask")));
  button.addEventListener("click", () => openViewer(sample, { before: input === group.inputs[0] ? "" : input.title, split: 100 }));
  return make("div", { role: "gridcell", className: "input" }, button, make("p", { className: "name", textContent: input.title }));
}

function methodCell(group, sample, m, column, best, methods) {
  const { label, folder } = group.methods[m];
  const error = group.errors[m][sample];
  const value = column < 0 ? "" : printed(group.scores[column][m][sample]);
  const spoken = column < 0 ? "" : `, ${group.columns[column].title} ${value}`;
  const button = make("button", { type: "button", tabIndex: -1, "aria-label": `${label}, ${group.ids[sample]}${spoken}` });
  if (error === undefined) button.append(picture(group, folder, sample, `${label}: ${group.texts[0]?.[sample] ?? group.ids[sample]}`));
  else button.append(make("span", { className: "missing", textContent: group.reasons[error], title: group.reasons[error] }));
  button.addEventListener("click", () => openViewer(sample, { after: label, split: DEFAULTS.split }));
  const cell = make("div", { role: "gridcell" }, button, make("p", { className: "name", textContent: label }));
  if (state.all) cell.append(allScores(group, sample, m, methods));
  else if (column >= 0) {
    const title = whyUndefined(group, column, m, sample);
    cell.append(make("p", { className: best ? "value best" : "value", textContent: value, title }));
  }
  return cell;
}

function allScores(group, sample, m, methods) {
  const list = make("dl", { className: "all" });
  group.columns.forEach((column, c) => {
    const best = bestMethods(group, c, sample, methods).includes(m);
    const title = whyUndefined(group, c, m, sample);
    const name = column.title.replace(/\s(×10\S*|[↑↓])/g, "");
    list.append(
      make("dt", { textContent: name, title: column.full }),
      make("dd", { className: best ? "best" : "", textContent: printed(group.scores[c][m][sample]), title }),
    );
  });
  return list;
}

const cellsOf = (row) => [...row.querySelectorAll("[role=gridcell] > button")];

/** Moves the cursor, which is kept within the sheet, and the focus with it. */
function focusCell(row, cell) {
  if (!order.length) return;
  const group = currentGroup();
  const methods = shownMethods(group);
  find("rows").querySelector("[role=gridcell] > button[tabindex='0']")?.setAttribute("tabindex", "-1");
  cursor.row = Math.min(Math.max(row, 0), order.length - 1);
  cursor.cell = Math.min(Math.max(cell, 0), group.inputs.length + methods.length - 1);
  const element = rowElements.get(order[cursor.row]);
  fillRow(group, methods, element);
  const button = cellsOf(element)[cursor.cell];
  button.setAttribute("tabindex", "0");
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** The cursor goes where the focus is. */
function followFocus(button) {
  const row = button.closest(".row");
  find("rows").querySelector("[role=gridcell] > button[tabindex='0']")?.setAttribute("tabindex", "-1");
  button.setAttribute("tabindex", "0");
  cursor.row = order.indexOf(row.sample);
  cursor.cell = cellsOf(row).indexOf(button);
}
