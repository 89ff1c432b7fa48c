// What each class scores, and what it is taken for.
const classNames = Page.data.classes;

const classOrder = (scored, field, order) => {
  const places = d3.range(classNames.length).filter((place) => scored.some((row) => row.accuracy[field][place] !== null));
  const values = (place) => scored.map((row) => row.accuracy[field][place] ?? 0);
  if (order === "worst") return d3.sort(places, (place) => d3.mean(values(place)));
  if (order === "spread") return d3.sort(places, (place) => d3.min(values(place)) - d3.max(values(place)));
  return places;
};

Page.figure("classes", (width, figure) => {
  const control = (name) => figure.querySelector(`select.${name}`);
  const field = control("metric").value;
  control("metric").closest("label").hidden = !rows.some((row) => row.accuracy?.boundary_iou.length);
  control("count").closest("label").hidden = classNames.length <= 20;
  const scored = shownWith((row) => row.accuracy).filter((row) => row.accuracy[field].length);
  if (!scored.length) return null;
  const ordered = classOrder(scored, field, control("order").value);
  const places = control("count").value === "all" ? ordered : ordered.slice(0, 20);
  const bars = places.flatMap((place) => scored.map((row) => ({ place, row, value: row.accuracy[field][place] })))
    .filter((bar) => bar.value !== null);
  const names = nameBands(places.map((place) => ({ index: place })), ({ index }) => classNames[index], width);
  const thickness = Math.max(4, Math.min(12, 90 / scored.length));
  return Page.plot({
    width, label: "IoU per class", marginLeft: names.marginLeft, marginRight: 20, marginTop: 30,
    height: 70 + places.length * (scored.length * thickness + 12),
    x: { label: `${field === "iou" ? "IoU" : "boundary IoU"} (%) →`, domain: [0, 100] },
    y: { axis: null, domain: scored.map((row) => row.index), padding: 0.1 },
    fy: { ...names.bands, axis: "left", padding: 0.14 },
    marks: [
      Plot.axisX({ anchor: "top", label: null }), Plot.axisX({ anchor: "bottom" }), Plot.gridX(Page.grid),
      Plot.barX(bars, {
        fy: "place", y: (bar) => bar.row.index, x: "value", fill: (bar) => bar.row.color, className: "bars",
        title: (bar) => `${classNames[bar.place]}\n${bar.row.name}: ${points(bar.value)}%`, tip: { ...Page.tip, pointer: "y", anchor: "left" },
      }),
      // A class that was never found has a bar without length, which has to say so.
      Plot.text(bars.filter((bar) => bar.value < 0.05), {
        fy: "place", y: (bar) => bar.row.index, x: 0, dx: 4, text: (bar) => points(bar.value), textAnchor: "start",
        fill: (bar) => bar.row.color, fontSize: Math.max(8, Math.min(11, thickness)),
      }),
      Plot.ruleX([0], { stroke: "var(--muted)" }),
    ],
  });
});

const setUpConfusion = () => {
  const select = document.querySelector("#plot-confusion select.row");
  for (const row of rows) if (row.accuracy?.confusion.length) select.append(new Option(row.name, row.index));
  const junior = rows.find((row) => row.role === "junior" && row.accuracy?.confusion.length);
  if (junior) select.value = junior.index;
};
setUpConfusion();

Page.figure("confusion", (width, figure) => {
  const row = rows[figure.querySelector("select.row").value];
  if (!row) return null;
  const cells = row.accuracy.confusion.flatMap((line, truth) => {
    const sum = d3.sum(line);
    return line.flatMap((count, given) => (count ? [{ truth, given, count, share: (100 * count) / sum }] : []));
  });
  const few = classNames.length <= 32;
  const longest = d3.max(classNames, (name) => [...name].length);
  const margin = few ? Math.min(0.3 * width, 34 + 7 * longest) : 30;
  const letters = Math.floor((margin - 26) / 6.6);
  const side = Math.min(width - margin - 12, Math.max(360, 52 * classNames.length), 760);
  const axis = { domain: d3.range(classNames.length), tickFormat: (place) => Page.shortened(classNames[place], letters), tickSize: 0, padding: few ? 0.04 : 0 };
  if (!few) axis.ticks = [];
  const spelled = side / classNames.length >= 30;
  return Page.plot({
    width: side + margin + 12, height: side + margin + 12, label: `Confusion of ${row.name}`,
    marginLeft: margin, marginTop: margin, marginRight: 12, marginBottom: 12,
    x: { ...axis, axis: "top", label: few ? "given class →" : `given class, in the data's order →`, tickRotate: -90 },
    y: { ...axis, label: `true class, row ${Page.shortened(row.name, 40)}` },
    marks: [
      Plot.frame({ stroke: "var(--line)" }),
      Plot.cell(cells, {
        x: "given", y: "truth", fill: (cell) => (cell.truth === cell.given ? "var(--row-2)" : "var(--row-5)"),
        fillOpacity: (cell) => 0.06 + 0.94 * Math.sqrt(cell.share / 100), className: "cells",
      }),
      !spelled ? null : Plot.text(cells.filter((cell) => cell.share >= 0.5), {
        x: "given", y: "truth", text: (cell) => cell.share.toFixed(0), fontSize: 11, pointerEvents: "none",
        fill: (cell) => (cell.share > 25 ? "var(--surface)" : "var(--ink)"),
      }),
      Plot.tip(cells, Plot.pointer({
        x: "given", y: "truth", ...Page.tip, maxRadius: 30,
        title: (cell) => `${classNames[cell.truth]} ${cell.truth === cell.given ? "found" : `taken for ${classNames[cell.given]}`}\n${cell.share.toFixed(2)}% of its pixels: ${cell.count.toLocaleString("en")}`,
      })),
    ],
    opacity: { type: "identity" },
  });
});
