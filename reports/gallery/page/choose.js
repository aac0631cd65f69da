// Which samples are shown, and in which order.

/** The column that is sorted by, or the first one, whose scores stand below the pictures; -1 without scores. */
function shownColumn(group) {
  if (!group.columns.length) return -1;
  return Math.max(0, group.columns.findIndex((column) => column.key === state.score));
}

function methodNumber(group, label) {
  const number = group.methods.findIndex((method) => method.label === label);
  return number < 0 ? group.baseline : number;
}

/** What the samples are sorted by: a method's score, or how much it is above another's; null where undefined. */
function sortValue(group, sample) {
  const scores = group.scores[shownColumn(group)];
  const value = scores[methodNumber(group, state.of)][sample];
  if (!state.minus || value === null) return value;
  const other = scores[methodNumber(group, state.minus)][sample];
  return other === null ? null : value - other;
}

/** {samples: their numbers in the order shown, undefinedCount: how many of them have no value to sort by}. */
function chosenSamples(group) {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  let samples = group.ids.map((_, sample) => sample).filter((sample) => {
    if (state.type && group.type[group.types[sample]] !== state.type) return false;
    const text = [group.ids[sample], ...group.texts.map((each) => each[sample])].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  let undefinedCount = 0;
  if (state.score) {
    const values = new Map(samples.map((sample) => [sample, sortValue(group, sample)]));
    const defined = samples.filter((sample) => values.get(sample) !== null);
    const rest = samples.filter((sample) => values.get(sample) === null);
    const ascending = group.columns[shownColumn(group)].higher === (state.order === "worst");
    defined.sort((one, two) => (ascending ? 1 : -1) * (values.get(one) - values.get(two)) || one - two);
    undefinedCount = state.k ? 0 : rest.length; // the best and the worst are of those that have a value
    samples = state.k ? defined : [...defined, ...rest];
  }
  return { samples: state.k ? samples.slice(0, state.k) : samples, undefinedCount };
}

function shownMethods(group) {
  return group.methods.map((_, number) => number).filter((number) => !state.hide.includes(group.methods[number].label));
}

/** The methods with the best score of a sample among `methods`, as printed, references left out; none of a single one. */
function bestMethods(group, column, sample, methods) {
  const rivals = methods.filter((m) => !group.methods[m].reference && group.scores[column][m][sample] !== null);
  if (rivals.length < 2) return [];
  const values = rivals.map((m) => Number(printed(group.scores[column][m][sample]).replace("−", "-")));
  const best = group.columns[column].higher ? Math.max(...values) : Math.min(...values);
  return rivals.filter((_, place) => values[place] === best);
}

/** Why a score is missing. */
function whyUndefined(group, column, method, sample) {
  const reason = group.undefined[column][method][sample] ?? group.errors[method][sample];
  return reason === undefined ? undefined : group.reasons[reason];
}
