// What is shown, and the part of the address behind # that holds it.

const DEFAULTS = Object.freeze({
  group: data.groups[0].key,
  find: "", // words that have to occur
  type: "", // name of an edit type
  score: "", // key of a score to sort by, "" for the order of the ids
  of: "", // the method whose scores these are, "" for the baseline
  minus: "", // the method whose scores are taken off
  order: "best", // or worst
  k: 0, // how many samples are shown, 0 for all
  hide: [], // methods that are not shown
  mask: true,
  all: false, // all scores below the pictures
  at: "", // the sample in the viewer, "" when it is closed
  before: "", // there: an input or a method, "" for the first input
  after: "", // there: a method
  split: 50, // there: per cent of the width that show what was before
});

const state = { ...DEFAULTS, hide: [] };

const currentGroup = () => data.groups.find((group) => group.key === state.group) ?? data.groups[0];

/** Reads the address; what it doesn't say or says wrongly is as by default. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (Array.isArray(value)) state[name] = given.getAll(name);
    else if (!given.has(name)) state[name] = value;
    else if (typeof value === "boolean") state[name] = given.get(name) === "1";
    else if (typeof value === "number") state[name] = Number.parseInt(given.get(name), 10);
    else state[name] = given.get(name);
  }
  checkState();
}

/** Puts what the group doesn't have back to the default. */
function checkState() {
  const group = currentGroup();
  const labels = group.methods.map((method) => method.label);
  const pictures = [...group.inputs.map((input) => input.title), ...labels];
  const allowed = {
    group: data.groups.map((each) => each.key),
    type: ["", ...group.type],
    score: ["", ...group.columns.map((column) => column.key)],
    of: ["", ...labels],
    minus: ["", ...labels],
    order: ["best", "worst"],
    at: ["", ...group.ids],
    before: ["", ...pictures],
    after: ["", ...labels],
  };
  for (const [name, values] of Object.entries(allowed)) {
    if (!values.includes(state[name])) state[name] = DEFAULTS[name];
  }
  state.k = state.k > 0 ? state.k : 0;
  state.split = state.split >= 0 && state.split <= 100 ? state.split : DEFAULTS.split;
  state.hide = state.hide.filter((label) => labels.includes(label));
  if (state.hide.length === labels.length) state.hide = [];
}

/** Writes the address. A `step` can be gone back from with the browser's button. */
function writeAddress(step = false) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (Array.isArray(value)) state[name].forEach((each) => said.append(name, each));
    else if (state[name] !== value) said.set(name, state[name] === true ? "1" : state[name] === false ? "0" : state[name]);
  }
  const hash = "#" + said;
  if (hash === (location.hash || "#")) return;
  if (step) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
}
