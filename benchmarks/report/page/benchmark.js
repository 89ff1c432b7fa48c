// The rows as the report's plots see them.
const SYMBOLS = { senior: "square", junior: "circle", artifact: "triangle" };
const rows = Page.data.rows.map((row, index) => ({
  ...row, index, color: Page.color(index), dash: Page.dashes(index), symbol: SYMBOLS[row.role],
}));

// The rows that are shown and have what `get` returns.
const shownWith = (get) => rows.filter((row) => Page.shown(row.index) && (get(row) ?? null) !== null);

// The end of a row's name tells most: fp16.onnx.
const NAME_LETTERS = 26;
const label = (row, width) => Page.shortened(row.name, width < 460 ? 18 : NAME_LETTERS);

// A band of each of `items` with its name on the left, and the room that the names take.
const nameBands = (items, name, width) => {
  const room = Math.min(0.4 * width, 24 + 7 * d3.max(items, (item) => [...name(item)].length));
  const letters = Math.floor((room - 20) / 7);
  const names = new Map(items.map((item) => [item.index, Page.shortened(name(item), letters)]));
  return { marginLeft: room, bands: { domain: items.map((item) => item.index), label: null, tickFormat: (index) => names.get(index), tickSize: 0 } };
};

const interval = (ends, form = Page.significant) => (ends ? ` (${form(ends[0])} to ${form(ends[1])})` : "");
const points = (value) => value.toFixed(2);
