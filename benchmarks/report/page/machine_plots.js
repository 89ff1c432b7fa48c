// What the machine could do, and what it did while it was measured.
const READINGS = {
  cpu_mhz: "processor clock (MHz)", cpu_celsius: "processor temperature (°C)", background_load: "other processes (% of all processors)",
  gpu_mhz: "GPU clock (MHz)", gpu_memory_mhz: "GPU memory clock (MHz)", gpu_watts: "GPU power (W)", gpu_limit_watts: "GPU power limit (W)",
  gpu_celsius: "GPU temperature (°C)",
};

Page.figure("roofline", (width) => {
  const bounded = shownWith((row) => row.roofline);
  if (!bounded.length) return null;
  const names = nameBands(bounded, (row) => row.name, width);
  return Page.plot({
    width, marginTop: 8, height: 58 + bounded.length * 30, marginLeft: names.marginLeft, marginRight: 56, label: "Roofline efficiency",
    x: { label: "roofline bound in % of the median inference →", domain: [0, Math.max(100, d3.max(bounded, (row) => row.roofline.efficiency))] },
    y: { ...names.bands, padding: 0.35 },
    marks: [
      Plot.gridX(Page.grid), Plot.ruleX([100], { stroke: "var(--muted)" }),
      Plot.barX(bounded, {
        y: "index", x: (row) => row.roofline.efficiency, fill: "color", className: "bars", tip: Page.tip,
        title: (row) => `${row.name}\nbound: ${Page.significant(row.roofline.efficiency)}% of the median inference, by ${row.roofline.bound}\ncompute ${Page.significant(row.roofline.compute_ms)} ms, memory ${Page.significant(row.roofline.memory_ms)} ms\npeak of ${row.roofline.peak}`,
      }),
      Plot.text(bounded, { y: "index", x: (row) => row.roofline.efficiency, text: (row) => `${row.roofline.efficiency.toFixed(0)}%`, dx: 5, textAnchor: "start", fill: "currentColor" }),
      Plot.ruleX([0], { stroke: "var(--muted)" }),
    ],
  });
});

const setUpReadings = () => {
  const select = document.querySelector("#plot-state select.reading");
  for (const [name, title] of Object.entries(READINGS))
    if (rows.some((row) => row.state.readings.some((reading) => reading[name] !== null))) select.append(new Option(title, name));
};
setUpReadings();

Page.figure("state", (width, figure) => {
  const name = figure.querySelector("select.reading").value;
  const readings = !name ? [] : shownWith((row) => row.state.readings.length).flatMap((row) =>
    row.state.readings.filter((reading) => reading[name] !== null).map((reading) => ({ row, ...reading, value: reading[name] })));
  if (!readings.length) return null;
  const [low, high] = d3.extent(readings, (reading) => reading.value);
  const room = Math.max(0.1 * (high - low), 0.02 * Math.abs(high), 0.5);
  const margin = width < 460 ? 130 : 180;
  const last = d3.groups(readings, (reading) => reading.row.index).map(([, of]) => of.at(-1));
  return Page.plot({
    width, height: Math.min(0.7 * width, 340), marginLeft: 56, marginRight: margin, label: "The machine's state",
    x: { label: "seconds since the row's first reading →" }, y: { label: `↑ ${READINGS[name]}`, domain: [Math.max(low - room, 0), high + room] },
    marks: [
      Plot.gridY(Page.grid),
      Plot.line(readings, { x: "at_s", y: "value", z: (reading) => reading.row.index, stroke: (reading) => reading.row.color, strokeWidth: 1.5, className: "lines" }),
      Plot.dot(readings, { x: "at_s", y: "value", r: 2.5, fill: (reading) => reading.row.color, className: "readings" }),
      Page.labels(last.map((reading) => ({ x: reading.at_s, y: reading.value, text: Page.shortened(reading.row.name, Math.floor((margin - 16) / 6.6)), color: reading.row.color }))),
      Plot.tip(readings, Plot.pointer({
        x: "at_s", y: "value", ...Page.tip,
        title: (reading) => `${reading.row.name}\n${reading.moment}, ${Page.significant(reading.at_s)} s\n${READINGS[name]}: ${Page.significant(reading.value)}${reading.gpu_limits.length ? `\nlimited: ${reading.gpu_limits.join(", ")}` : ""}`,
      })),
    ],
  });
});
