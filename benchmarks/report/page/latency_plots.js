// Latency and throughput: by batch size, stage, frequency, and over time.
const STAGES = [["preprocess", "pre", 0.35], ["infer", "infer", 1], ["postprocess", "post", 0.6]];
const LANE = 46; // px of a row where each has its own strip
const BINS = 60;
const GROUPS = 160; // of successive samples
const FARTHEST = 3; // medians

// Lines over batch sizes; `value` is what a point has, `tail` how far up its thin line reaches.
const overBatches = (width, name, yLabel, value, tail, title, axis) => {
  const curves = shownWith((row) => row.throughput).flatMap((row) =>
    row.throughput.filter((point) => value(point) !== null).map((point) => ({ row, batch: point.batch, y: value(point), tail: tail(point) ?? value(point), title: title(row, point) })));
  if (!curves.length) return null;
  const batches = [...new Set(curves.map((point) => point.batch))].sort(d3.ascending);
  const room = width < 460 ? 130 : 180;
  const scale = axis(curves.flatMap((point) => [point.y, point.tail]));
  const last = d3.groups(curves, (point) => point.row.index).map(([, of]) => of.at(-1));
  return Page.plot({
    width, height: Math.min(0.72 * width, 380), marginRight: room, label: name,
    x: { type: "log", base: 2, domain: [batches[0] / 1.15, batches.at(-1) * 1.15], ticks: batches, tickFormat: (batch) => `${batch}`, label: "batch size →" },
    y: { label: yLabel, ...scale },
    marks: [
      Plot.gridY(scale.ticks, Page.grid),
      Plot.line(curves, { x: "batch", y: "y", z: (point) => point.row.index, stroke: (point) => point.row.color, strokeWidth: 2, className: "lines" }),
      Plot.ruleX(curves, { x: "batch", y1: "y", y2: "tail", stroke: (point) => point.row.color, strokeOpacity: 0.6 }),
      Plot.dot(curves, { x: "batch", y: "y", r: 4, fill: (point) => point.row.color, symbol: (point) => point.row.symbol, className: "points" }),
      Page.labels(last.map((point) => ({ x: point.batch, y: point.y, text: Page.shortened(point.row.name, Math.floor((room - 16) / 6.6)), color: point.row.color }))),
      Plot.tip(curves, Plot.pointer({ x: "batch", y: "y", title: "title", ...Page.tip })),
    ],
  });
};

Page.figure("batch-latency", (width) =>
  overBatches(width, "Latency against batch size", "↑ ms", (point) => point.total?.p50 ?? null, (point) => point.total?.p99,
    (row, point) => `${row.name}, batch ${point.batch}\np50 ${Page.significant(point.total.p50)} ms, p99 ${Page.significant(point.total.p99)} ms\n${Page.significant(point.total.p50 / point.batch)} ms per image`,
    (values) => Page.positiveScale(values, { log: true })));
Page.figure("batch-rate", (width) =>
  overBatches(width, "Throughput against batch size", "↑ images/s", (point) => point.images_per_s, () => null,
    (row, point) => `${row.name}, batch ${point.batch}\n${Page.significant(point.images_per_s)} images/s end to end\n${Page.significant(point.infer_images_per_s)} images/s, infer alone`,
    (values) => Page.positiveScale(values)));

Page.figure("stages", (width) => {
  const timed = shownWith((row) => row.latency);
  if (!timed.length) return null;
  const names = nameBands(timed, (row) => row.name, width);
  const bars = timed.flatMap((row) => {
    let from = 0;
    return STAGES.map(([stage, name, opacity]) => ({ row, name, opacity, from, to: (from += row.latency[stage].p50), of: row.latency[stage] }));
  });
  const ticks = timed.flatMap((row) => ["p50", "p90", "p99"].map((of) => ({ row, of, at: row.latency.total[of] })));
  return Page.plot({
    width, marginTop: 8, height: 58 + timed.length * 30, marginLeft: names.marginLeft, marginRight: 16, label: "Where the time goes",
    x: { label: "ms →", domain: [0, 1.04 * d3.max([...bars.map((bar) => bar.to), ...ticks.map((tick) => tick.at)])] },
    y: { ...names.bands, padding: 0.35 },
    marks: [
      Plot.gridX(Page.grid),
      Plot.rectX(bars, {
        x1: "from", x2: "to", y: (bar) => bar.row.index, fill: (bar) => bar.row.color, fillOpacity: "opacity", className: "bars",
        title: (bar) => `${bar.row.name}: ${bar.name}\np50 ${Page.significant(bar.of.p50)} ms, p90 ${Page.significant(bar.of.p90)} ms, p99 ${Page.significant(bar.of.p99)} ms\nend to end p50 ${Page.significant(bar.row.latency.total.p50)} ms, max ${Page.significant(bar.row.latency.total.max)} ms`,
        tip: Page.tip,
      }),
      Plot.tickX(ticks, { x: "at", y: (tick) => tick.row.index, stroke: "var(--ink)", strokeOpacity: (tick) => ({ p50: 1, p90: 0.7, p99: 0.45 })[tick.of], strokeWidth: 1.5, className: "ticks" }),
      Plot.ruleX([0], { stroke: "var(--muted)" }),
    ],
    opacity: { type: "identity" },
  });
});

Page.figure("interleaved", (width) => {
  const timing = Page.data.interleaved;
  const contenders = (timing?.contenders ?? []).flatMap((contender, index) => {
    const row = rows.find((row) => row.name === contender.name);
    return contender.speed === null || (row && !Page.shown(row.index)) ? [] : [{ ...contender, index, color: row?.color ?? "var(--muted)", row }];
  });
  if (!contenders.length) return null;
  const names = nameBands(contenders, (contender) => contender.name, width);
  const x = Page.positiveScale(contenders.flatMap((contender) => [contender.speed, ...(contender.speed_interval ?? []), ...(contender.speed_quartiles ?? []), 1]), { log: true });
  const ends = (field, strokeWidth) => Plot.ruleY(contenders.filter((contender) => contender[field]), {
    y: "index", x1: (contender) => contender[field][0], x2: (contender) => contender[field][1], stroke: "color", strokeWidth, strokeOpacity: strokeWidth > 3 ? 0.35 : 1, className: field,
  });
  return Page.plot({
    width, marginTop: 8, height: 58 + contenders.length * 28, marginLeft: names.marginLeft, marginRight: 16, label: "Relative speed",
    x: { label: `times as fast as ${Page.shortened(timing.reference, NAME_LETTERS)} →`, ...x }, y: { ...names.bands, type: "point", padding: 0.6 },
    marks: [
      Plot.gridX(x.ticks, Page.grid), Plot.ruleX([1], { stroke: "var(--muted)" }),
      ends("speed_quartiles", 9), ends("speed_interval", 2),
      Plot.dot(contenders, { x: "speed", y: "index", r: 4.5, fill: "color", stroke: "var(--surface)", symbol: (contender) => contender.row?.symbol ?? "diamond", className: "contenders" }),
      Plot.tip(contenders, Plot.pointer({
        x: "speed", y: "index", ...Page.tip,
        title: (contender) => `${contender.name} (${contender.kind === "baseline" ? "baseline, " : ""}${contender.engine})\n${points(contender.speed)}× as fast${interval(contender.speed_interval, points)}\nquartiles of the rounds${interval(contender.speed_quartiles, points)}\np50 ${Page.significant(contender.total?.p50)} ms${contender.same_masks === null ? "" : `\n${contender.same_masks === 100 ? 100 : Math.min(contender.same_masks, 99.999).toFixed(3)}% of the pixels alike`}`,
      })),
    ],
  });
});

// Each row's times over their median, on one axis from the least to where nearly all are.
const relativeTimes = () => {
  const timed = shownWith((row) => row.latency).filter((row) => row.latency.times_ms.length > 1);
  const series = timed.map((row) => ({ row, index: row.index, name: row.name, median: row.latency.total.p50, times: row.latency.times_ms }));
  const low = d3.min(series, ({ times, median }) => d3.min(times) / median);
  const high = d3.max(series, ({ row, median }) => row.latency.total.p99 / median);
  return { series, domain: [Math.min(low, 0.98), Math.min(Math.max(1 + 1.3 * (high - 1), 1.05), FARTHEST)] };
};
const lanes = (series, width) => {
  const names = nameBands(series, ({ name }) => name, width);
  return { marginLeft: names.marginLeft, marginTop: 8, fy: { ...names.bands, axis: "left", padding: 0.12 }, height: 48 + series.length * LANE };
};

Page.figure("distribution", (width) => {
  const { series, domain: [low, high] } = relativeTimes();
  if (!series.length) return null;
  const edges = d3.range(BINS + 1).map((bin) => low + ((high - low) * bin) / BINS);
  const bins = series.flatMap(({ row, index, median, times }) => {
    const counted = d3.bin().domain([low, high]).thresholds(edges.slice(1, -1))(times.map((time) => time / median).filter((time) => time <= high));
    const most = d3.max(counted, (bin) => bin.length);
    return counted.filter((bin) => bin.length).map((bin) => ({ row, index, x1: bin.x0, x2: bin.x1, y: bin.length / most, count: bin.length, median, samples: times.length }));
  });
  const beyond = series.flatMap(({ row, index, median, times }) => {
    const far = times.filter((time) => time / median > high);
    return far.length ? [{ row, index, text: `+${far.length}, up to ${Page.significant(d3.max(far))} ms →` }] : [];
  });
  const marks = series.flatMap(({ row, index, median }) => ["p90", "p99"].map((of) => ({ row, index, x: row.latency.total[of] / median })).filter(({ x }) => x <= high));
  return Page.plot({
    width, ...lanes(series, width), marginRight: 16, label: "Distribution of the latency",
    x: { domain: [low, high], label: "time ÷ the row's median →" }, y: { axis: null, domain: [0, 1.15] },
    marks: [
      Plot.gridX(Page.grid), Plot.ruleX([1], { stroke: "var(--muted)", strokeOpacity: 0.6 }),
      Plot.rectY(bins, {
        fy: "index", x1: "x1", x2: "x2", y1: 0, y2: "y", insetLeft: 0.5, insetRight: 0, fill: (bin) => bin.row.color, className: "bins",
        title: (bin) => `${bin.row.name}\n${Page.significant(bin.x1 * bin.median)} to ${Page.significant(bin.x2 * bin.median)} ms: ${bin.count} of ${bin.samples} samples`, tip: { ...Page.tip, pointer: "x" },
      }),
      Plot.ruleX(marks, { fy: "index", x: "x", y1: 0, y2: 1, stroke: "var(--ink)", strokeDasharray: "3 2" }),
      Plot.text(beyond, { fy: "index", text: "text", frameAnchor: "top-right", dx: -2, textAnchor: "end", fill: "var(--bad)", className: "beyond" }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
    ],
  });
});

Page.figure("over-time", (width) => {
  const { series, domain } = relativeTimes();
  if (!series.length) return null;
  const groups = series.flatMap(({ row, index, median, times }) => {
    const size = Math.ceil(times.length / GROUPS);
    const starts = d3.cumsum(times);
    return d3.range(0, times.length, size).map((from) => {
      const part = times.slice(from, from + size);
      return { row, index, median, from, to: from + part.length, s: starts[from] / 1000, mid: d3.median(part) / median, low: d3.min(part) / median, high: d3.max(part) / median };
    });
  });
  const clipped = (value) => Math.min(value, domain[1]);
  return Page.plot({
    width, ...lanes(series, width), marginRight: 48, label: "Latency over time",
    x: { label: "measured seconds →" }, y: { domain, ticks: 3, label: null, axis: "right" },
    marks: [
      Plot.ruleY([1], { stroke: "var(--muted)", strokeOpacity: 0.5 }),
      Plot.areaY(groups, { fy: "index", x: "s", y1: "low", y2: (group) => clipped(group.high), fill: (group) => group.row.color, fillOpacity: 0.28, z: "index" }),
      Plot.lineY(groups, { fy: "index", x: "s", y: (group) => clipped(group.mid), stroke: (group) => group.row.color, strokeWidth: 1.5, z: "index", className: "lines" }),
      Plot.tip(groups, Plot.pointerX({
        fy: "index", x: "s", y: (group) => clipped(group.mid), ...Page.tip,
        title: (group) => `${group.row.name}\nsamples ${group.from + 1} to ${group.to}\nmedian ${Page.significant(group.mid * group.median)} ms (${Page.significant(group.low * group.median)} to ${Page.significant(group.high * group.median)})`,
      })),
    ],
  });
});

Page.figure("sustained", (width) => {
  const seconds = shownWith((row) => row.sustained).flatMap((row) => row.sustained.by_second.map((rate, second) => ({ row, second: second + 1, rate })));
  if (!seconds.length) return null;
  const room = width < 460 ? 130 : 190;
  const scale = Page.positiveScale(seconds.map((point) => Math.max(point.rate, 1e-3)), { room: 1.1 });
  const last = d3.groups(seconds, (point) => point.row.index).map(([, of]) => of.at(-1));
  return Page.plot({
    width, height: Math.min(0.72 * width, 340), marginRight: room, label: "Sustained throughput",
    x: { label: "second →" }, y: { label: "↑ images/s", ...scale },
    marks: [
      Plot.gridY(scale.ticks, Page.grid),
      Plot.line(seconds, { x: "second", y: "rate", z: (point) => point.row.index, stroke: (point) => point.row.color, strokeWidth: 1.7, className: "lines" }),
      Page.labels(last.map((point) => ({ x: point.second, y: point.rate, text: Page.shortened(point.row.name, Math.floor((room - 16) / 6.6)), color: point.row.color }))),
      Plot.tip(seconds, Plot.pointer({
        x: "second", y: "rate", ...Page.tip,
        title: ({ row, second, rate }) => `${row.name}, batch ${row.sustained.batch}\nsecond ${second}: ${Page.significant(rate)} images/s\nall ${Page.significant(row.sustained.seconds)} s: ${Page.significant(row.sustained.images_per_s)} images/s`,
      })),
    ],
  });
});
