// Charts of trainings: every value over steps, all runs over one another.
const smoothing = document.getElementById("smoothing");
const logarithmic = document.getElementById("log");
const runs = Page.data.runs.map((run, index) => ({ ...run, index, color: Page.color(run.row), dash: Page.dashes(run.row) }));

const lastStep = d3.max(runs.flatMap((run) => [...run.training.steps, ...run.validation.steps])) ?? 1;

// Exponential moving average, corrected for its start at 0; a gap does not move it.
const smoothed = (values, weight) => {
  let average = 0, left = 1;
  return values.map((value) => {
    if (value === null) return null;
    average = weight * average + (1 - weight) * value;
    left *= weight;
    return average / (1 - left);
  });
};

// The points of a run's curve, as recorded (`raw`) and as drawn (`value`).
const pointsOf = (run, chart, weight) => {
  const { steps, values } = run[chart.curves];
  const raw = values[chart.name];
  if (raw === undefined) return [];
  const drawn = weight > 0 ? smoothed(raw, weight) : raw;
  return steps.map((step, place) => ({ run, step, raw: raw[place], value: drawn[place] })).filter((point) => point.raw !== null);
};

const scaleOf = (chart, points, isLog) => {
  if (!isLog) {
    const values = points.flatMap((point) => [point.raw, point.value]);
    const [low, high] = d3.extent(values);
    const room = low === high ? Math.abs(low) / 50 || 1 : 0; // a single value has no range to mark off
    return { domain: [chart.low ?? low - room, chart.high ?? high + room], nice: chart.high === null, ticks: 5 };
  }
  const [low, high] = d3.extent(points, (point) => point.raw);
  return { type: "log", domain: [low, high], ticks: Page.logTicks(low, high), tickFormat: (tick) => `${tick}` };
};

const exact = (value) => `${Number(value.toPrecision(6))}`;
const told = (point, weight) =>
  `${point.run.name}\nstep ${point.step}: ${exact(point.raw)}` + (weight > 0 ? `\nsmoothed: ${exact(point.value)}` : "");

const drawChart = (chart, width) => {
  const weight = chart.smooth ? Number(smoothing.value) : 0;
  const isLog = chart.log && logarithmic.checked;
  const curves = runs
    .filter((run) => Page.shown(run.index))
    .map((run) => pointsOf(run, chart, weight).filter((point) => !isLog || (point.raw > 0 && point.value > 0)))
    .filter((points) => points.length);
  const all = curves.flat();
  if (!all.length) return null;
  // Dashes are a mark's, colors a point's: few marks are drawn much faster than one for each run.
  const lines = (y, options) =>
    [...d3.group(all, (point) => point.run.dash)].map(([strokeDasharray, points]) =>
      Plot.line(points, { x: "step", y, z: (point) => point.run.index, stroke: (point) => point.run.color, strokeDasharray, ...options }));
  const dots = chart.curves === "validation" ? all : curves.filter((points) => points.length === 1).flat();
  return Page.plot({
    width, height: 210, label: chart.title, marginLeft: 52, marginTop: 12, marginBottom: 34,
    x: { label: "step", domain: [0, lastStep], ticks: 4, tickFormat: (step) => Page.quantity(step).replace(/\.0+(?=\D|$)/, "") },
    y: { label: null, ...scaleOf(chart, all, isLog) },
    marks: [
      Plot.gridY(Page.grid),
      weight > 0 ? lines("raw", { strokeOpacity: 0.22, strokeWidth: 1, ariaDescription: "recorded" }) : null,
      lines("value", { strokeWidth: 1.6, ariaDescription: "curve" }),
      Plot.dot(dots, { x: "step", y: "value", r: 2.6, fill: (point) => point.run.color }),
      Plot.tip(all, Plot.pointer({ x: "step", y: "value", title: (point) => told(point, weight), lineHeight: 1.3, ...Page.tip })),
    ],
    color: { type: "identity" },
  });
};

// Dozens of charts with dozens of runs take seconds: a chart is drawn when it is seen and something has changed.
const seen = new Set();
const placeholder = () => Object.assign(document.createElement("div"), { className: "later" });
const drawWhenSeen = (chart) => {
  let drawn, drawnFor;
  return (width, element) => {
    if (!seen.has(element)) return drawn === undefined || drawn === null ? placeholder() : drawn;
    const wanted = [width, smoothing.value, logarithmic.checked, ...runs.map((run) => Page.shown(run.index))].join();
    if (wanted !== drawnFor) drawn = drawChart(chart, width);
    drawnFor = wanted;
    return drawn;
  };
};
for (const chart of Page.data.charts) Page.figure(chart.id, drawWhenSeen(chart));

let asked = false;
const redrawSoon = () => {
  document.getElementById("smoothing-value").textContent = Number(smoothing.value).toFixed(2);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    Page.redraw();
  });
};
const charts = document.querySelectorAll("#curves figure.plot");
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) isIntersecting ? seen.add(target) : seen.delete(target);
    redrawSoon();
  },
  { rootMargin: "400px 0px" },
);
for (const chart of charts) watcher.observe(chart);
addEventListener("beforeprint", () => {
  for (const chart of charts) seen.add(chart);
  Page.redraw();
});
smoothing.addEventListener("input", redrawSoon);
logarithmic.addEventListener("change", redrawSoon);

// A row's box stands for its runs' boxes.
for (const group of document.querySelectorAll("input[data-group]")) {
  const members = [...document.querySelectorAll(`input[data-of="${group.dataset.group}"]`)];
  group.addEventListener("change", () => {
    for (const box of members.filter((box) => box.checked !== group.checked)) box.click();
  });
  for (const box of members)
    box.addEventListener("change", () => {
      group.checked = members.some((member) => member.checked);
      group.indeterminate = group.checked && !members.every((member) => member.checked);
    });
}
Page.start();
