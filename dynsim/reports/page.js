"use strict";
// A page has cases (the runs of a comparison, for one), a case has frames (layers, or equilibria),
// and a frame of every view is a figure. The data stand in the page once; the slider chooses.

const page = JSON.parse(document.getElementById("data").textContent);
const now = { case: 0, frame: 0, head: 0, apart: 0 };
const CONFIG = {
  responsive: true, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false,
  plotlyServerURL: "", modeBarButtonsToRemove: ["sendDataToCloud", "select2d", "lasso2d"],
};
const by = (id) => document.getElementById(id);

// --- numbers and words -----------------------------------------------------------------------

// An array {shape, type, scale, data}: its parts along the first axis, or along the first two.
class Packed {
  constructor({ shape, type, scale, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    this.numbers = type === "u2" ? new Uint16Array(bytes.buffer) : new Float32Array(bytes.buffer);
    this.shape = shape;
    this.scale = scale;
  }
  // The rows of the matrix at these leading indices.
  matrix(...place) {
    const [rows, columns] = this.shape.slice(-2);
    let k = 0;
    place.forEach((index, axis) => { k = k * this.shape[axis] + index; });
    return Array.from({ length: rows }, (_, row) => {
      const first = (k * rows + row) * columns;
      return Array.from(this.numbers.subarray(first, first + columns), (v) => v * this.scale);
    });
  }
}
const unpacked = new WeakMap();
function array(packed) {
  if (!unpacked.has(packed)) unpacked.set(packed, new Packed(packed));
  return unpacked.get(packed);
}

// Plotly reads some tags in texts; ours are plain.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const short = (text) => plain(String(text).length > 40 ? `${String(text).slice(0, 39)}…` : text);
const column = (rows, k) => rows.map((row) => row[k]);

// --- colours ---------------------------------------------------------------------------------

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
// Okabe and Ito's palette, without its black.
const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
const line = (k) => LINES[k % LINES.length];
const faint = (hex) => `rgba(${channels(hex).join(",")},0.18)`;
// Shades of attention grow with its root, so that 1/64 can be told from 0 beside 1.
function scale() {
  const ends = [colour("lowest"), "#4a90c8", colour("highest")].map(channels);
  const shade = (s) => {
    const [a, b, share] = s < 0.5 ? [ends[0], ends[1], 2 * s] : [ends[1], ends[2], 2 * s - 1];
    return `rgb(${a.map((v, k) => Math.round(v + share * (b[k] - v))).join(",")})`;
  };
  return Array.from({ length: 21 }, (_, k) => [(k / 20) ** 2, shade(k / 20)]);
}
const channels = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

function layout(own) {
  const axis = {
    gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"),
    automargin: true,
  };
  const font = { color: colour("ink"), size: 12 };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font,
    margin: { l: 50, r: 12, t: 8, b: 42 }, uirevision: "kept",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", traceorder: "normal" },
    hoverlabel: { font, bgcolor: colour("card"), bordercolor: colour("line"), namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("pale"), activecolor: colour("ink") },
    ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
  };
}

// --- the views: (view, frame) -> a figure of Plotly --------------------------------------------

function curves(view, frame) {
  const data = [];
  view.lines.forEach(({ name, y, low, high, x }, k) => {
    const place = { x: x ?? view.x, mode: "lines", legendgroup: String(k) };
    if (low) {
      const edge = { ...place, showlegend: false, hoverinfo: "skip", line: { width: 0 } };
      data.push({ ...edge, y: low }, { ...edge, y: high, fill: "tonexty", fillcolor: faint(line(k)) });
    }
    data.push({ ...place, y, name: short(name), line: { color: line(k), width: 2 } });
  });
  const here = cases()[now.case].frames.positions?.[frame];
  const mark = { color: colour("ink"), width: 1.5, dash: "dot" };
  const at = { type: "line", x0: here, x1: here, yref: "paper", y0: 0, y1: 1, line: mark };
  return { data, layout: layout({
    shapes: here === undefined ? [] : [at],
    xaxis: { title: { text: view.x_label } },
    yaxis: { title: { text: view.y_label }, type: view.log ? "log" : "linear", exponentformat: "power",
             ...(view.y_range ? { range: view.y_range } : {}) },
    showlegend: view.lines.length > 1, hovermode: "x unified",
  }) };
}

function spectrum(view, frame) {
  const values = array(view.values).matrix()[frame];
  const first = array(view.values).matrix()[0];
  const k = values.map((_, i) => i + 1);
  const shown = (y) => y.map((v) => (v > 0 ? v : null));
  return { data: [
    { x: k, y: shown(first), name: short(view.first), mode: "lines", line: { color: "#999999", width: 1 } },
    { x: k, y: shown(values), name: short(label()), mode: "lines+markers",
      line: { color: colour("accent"), width: 2 }, marker: { size: 5 } },
  ], layout: layout({
    xaxis: { title: { text: "number" } },
    yaxis: { title: { text: "singular value / largest" }, type: "log", range: [view.lowest, 0.15],
             exponentformat: "power" },
  }) };
}

function sphere(view, frame) {
  const rows = array(now.apart ? view.apart : view.points).matrix(frame);
  const flat = view.dim === 2;
  const circles = flat ? [[0, 1]] : [[0, 1], [0, 2], [1, 2]];
  const round = Array.from({ length: 73 }, (_, k) => (k * Math.PI) / 36);
  const ring = (a, b, axis) => round.map((t) => (axis === a ? Math.cos(t) : axis === b ? Math.sin(t) : 0))
    .concat([null]);
  const of = (axis) => circles.flatMap(([a, b]) => ring(a, b, axis));
  const bare = { visible: false, range: [-1.05, 1.05] };
  return { data: [
    { type: "scatter3d", mode: "lines", x: of(0), y: of(1), z: of(2), hoverinfo: "skip",
      line: { color: colour("pale"), width: 1.5 } },
    { type: "scatter3d", mode: "markers", x: column(rows, 0), y: column(rows, 1), z: column(rows, 2),
      text: view.tokens.map(plain), hovertemplate: "%{text}<extra></extra>",
      marker: { size: 5, color: rows.map((_, k) => k), colorscale: "Viridis",
                line: { width: 0.5, color: colour("ink") } } },
  ], layout: layout({
    margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false,
    scene: {
      xaxis: bare, yaxis: bare, zaxis: bare, aspectmode: "cube", dragmode: "orbit",
      camera: flat ? { eye: { x: 0, y: 0, z: 1.3 }, up: { x: 0, y: 1, z: 0 } }
                   : { eye: { x: 0.95, y: 0.85, z: 0.65 } },
    },
  }) };
}

function matrix(view, frame) {
  const weights = attention(view, frame);
  const text = "query %{y} attends to key %{x}: %{z:.3g}<extra></extra>";
  const data = [{ type: "heatmap", z: weights ?? [[null]], x: view.tokens.map(plain),
    y: view.tokens.map(plain), zmin: 0, zmax: view.largest[now.head], colorscale: scale(),
    hovertemplate: text, colorbar: { thickness: 10, outlinewidth: 0 } }];
  const none = { text: "no layer follows", showarrow: false, xref: "paper", yref: "paper", x: .5, y: .5 };
  const axis = { type: "category", showgrid: false, nticks: 9, constrain: "domain" };
  return { data, layout: layout({
    annotations: weights ? [] : [none],
    xaxis: { ...axis, title: { text: "key" } },
    yaxis: { ...axis, title: { text: "query" }, autorange: "reversed", scaleanchor: "x" },
  }) };
}
function attention(view, frame) {
  const weights = array(view.weights);
  return frame < weights.shape[0] ? weights.matrix(frame, now.head) : null;
}

function plane(view, frame) {
  const points = view.points[frame];
  const round = Array.from({ length: 181 }, (_, k) => (k * Math.PI) / 90);
  return { data: [
    { x: round.map(Math.cos), y: round.map(Math.sin), mode: "lines", hoverinfo: "skip",
      name: "unit circle", line: { color: colour("pale"), width: 1 } },
    { x: column(points, 0), y: column(points, 1), mode: "markers", name: "multipliers",
      marker: { size: 8, color: view.kinds[frame].map((kind) => view.colors[kind]) },
      hovertemplate: "%{x:.4g} + %{y:.4g} i<extra></extra>" },
  ], layout: layout({
    showlegend: false, xaxis: { title: { text: "real part" } },
    yaxis: { title: { text: "imaginary part" }, scaleanchor: "x" },
  }) };
}

function bars(view) {
  return { data: view.series.map(({ name, values, color }) => (
    { type: "bar", x: view.x, y: values, name: short(name), marker: { color } })), layout: layout({
    barmode: "stack", xaxis: { title: { text: view.x_label }, type: "category" },
    yaxis: { title: { text: view.y_label } },
  }) };
}

function map(view, frame) {
  const values = view.values[Math.min(frame, view.values.length - 1)];
  const words = view.words.length;
  const look = words
    ? { zmin: -0.5, zmax: words - 0.5, colorscale: steps(view.colors),
        colorbar: { tickvals: view.words.map((_, k) => k), ticktext: view.words.map(plain), thickness: 12 } }
    : { zmin: view.range[0], zmax: view.range[1], colorscale: "Viridis", colorbar: { thickness: 12 } };
  const text = values.map((row) => row.map((v) => (v === null ? "none" : words ? view.words[v] : v.toPrecision(4))));
  return { data: [{ type: "heatmap", z: values, x: view.x.map(plain), y: view.y.map(plain), text, ...look,
    hovertemplate: `${plain(view.x_label)} %{x}, ${plain(view.y_label)} %{y}: %{text}<extra></extra>` }],
  layout: layout({
    xaxis: { type: "category", title: { text: plain(view.x_label) }, showgrid: false, nticks: 12 },
    yaxis: { type: "category", title: { text: plain(view.y_label) }, showgrid: false, nticks: 12 },
  }) };
}
function dots(view) {
  const words = view.words.length;
  const kinds = words ? view.words.map((word, k) => ({ name: short(word), color: view.colors[k], of: (v) => v === k }))
                      : [{ name: "", color: null, of: (v) => v !== null }];
  const data = kinds.map(({ name, color, of }) => {
    const there = view.values.map((v, k) => k).filter((k) => of(view.values[k]));
    const pick = (values) => there.map((k) => values[k]);
    const look = color ? { color } : { color: pick(view.values), colorscale: "Viridis", colorbar: { thickness: 12 } };
    return { x: pick(view.x), y: pick(view.y), text: pick(view.values), name, mode: "markers",
             marker: { size: 8, ...look } };
  });
  return { data, layout: layout({
    showlegend: words > 0, xaxis: { title: { text: plain(view.x_label) } },
    yaxis: { title: { text: plain(view.y_label) } },
  }) };
}
const steps = (colors) => colors.flatMap((c, k) => [[k / colors.length, c], [(k + 1) / colors.length, c]]);

// Attention as arcs from key to query, above the line to earlier tokens, below it to later ones.
const shuffled = (i, j) => ((i + 1) * 7919 + (j + 1) * 104729) % 1009; // which of equal weights
function arcs(view, frame, host) {
  const weights = attention(view, frame);
  const n = view.tokens.length, width = 600, half = view.ahead ? 150 : 270, middle = half + 12;
  const x = (k) => 16 + (k * (width - 32)) / Math.max(1, n - 1);
  const parts = [];
  const pairs = (weights ?? []).flatMap((row, i) => row.map((w, j) => [w, i, j])
    .filter(([w, , j]) => i !== j && w > 0)
    .sort((a, b) => b[0] - a[0] || shuffled(i, a[2]) - shuffled(i, b[2])).slice(0, view.most_arcs));
  pairs.sort((a, b) => a[0] - b[0]); // the largest on top
  for (const [w, i, j] of pairs) {
    const across = Math.abs(x(i) - x(j)) / 2, up = Math.min(across, half * (0.25 + 0.75 * across / (width / 2)));
    const share = Math.sqrt(w / view.largest[now.head]);
    parts.push(`<path d="M${x(j)} ${middle}A${across} ${up} 0 0 1 ${x(i)} ${middle}"`
      + ` fill="none" stroke="${colour("accent")}" stroke-width="${(0.5 + 2 * share).toFixed(2)}"`
      + ` opacity="${(0.9 * share).toFixed(3)}"/>`);
  }
  for (let k = 0; k < n; k++) {
    const own = weights ? weights[k][k] : 0;
    parts.push(`<circle cx="${x(k)}" cy="${middle}" r="${(1.5 + 5 * Math.sqrt(own)).toFixed(2)}" fill="${colour("ink")}"/>`);
  }
  const height = view.ahead ? 2 * middle : middle + 12;
  const words = weights ? `attention as arcs, ${plain(label())}` : "no layer follows";
  host.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${words.replaceAll('"', "")}">${parts.join("")}</svg>`;
}

const FIGURES = { curves, spectrum, sphere, matrix, plane, bars, map, dots };

// --- the page --------------------------------------------------------------------------------

const cases = () => page.cases;
function label() {
  const { name, labels } = cases()[now.case].frames;
  return `${name} ${labels[now.frame]}`.trim();
}
let shown = [];

function element(kind, parent, text = "", name = "") {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  if (name) made.className = name;
  parent.append(made);
  return made;
}

// A card for each view of the case; attention has two pictures, so two cards.
function build() {
  for (const { host } of shown) Plotly.purge(host);
  by("views").replaceChildren();
  const views = [...page.shared, ...cases()[now.case].views];
  shown = views.flatMap((view) => view.kind === "attention"
    ? [card({ ...view, kind: "matrix" }), card({ ...view, kind: "arcs", title: view.arcs_title, note: view.arcs_note })] : [card(view)]);
  const { labels } = cases()[now.case].frames;
  now.frame = Math.min(now.frame, labels.length - 1);
  by("slider").max = labels.length - 1;
  by("controls").hidden = labels.length < 2 && cases().length < 2;
  for (const id of ["slider", "play", "frame"]) by(id).hidden = labels.length < 2;
}

function card(view) {
  const box = element("section", by("views"), "", "view");
  const head = element("div", box, "", "head");
  element("h2", head, view.title);
  if (view.kind === "matrix" && view.heads.length > 1) choice(head, "head ", view.heads, "head");
  if (view.kind === "sphere") choice(head, "", ["tokens", "differences, magnified"], "apart");
  const host = element("div", box, "", "picture");
  host.setAttribute("role", "figure");
  host.setAttribute("aria-label", view.title);
  const note = element("p", box, "", "note");
  return { view, host, note };
}

// A list in the head of a card that sets an entry of `now`.
function choice(head, words, names, entry) {
  const select = element("select", element("label", head, words));
  select.setAttribute("aria-label", words || names.join(" or "));
  names.forEach((name, k) => { select.add(new Option(name, k)); });
  now[entry] = Math.min(now[entry], names.length - 1);
  select.value = now[entry];
  select.addEventListener("change", () => { now[entry] = Number(select.value); show(); });
}

function show() {
  const { frames } = cases()[now.case];
  by("slider").value = now.frame;
  by("slider").setAttribute("aria-valuetext", label());
  by("slider").setAttribute("aria-label", frames.name || "what is shown");
  by("frame").textContent = `${label()} (${now.frame + 1} of ${frames.labels.length})`;
  for (const { view, host, note } of shown) {
    const below = [view.note, view.notes?.[now.frame]].filter(Boolean).join("; ");
    note.textContent = view.kind === "sphere" && now.apart ? view.apart_note : below;
    if (view.kind === "arcs") { arcs(view, now.frame, host); continue; }
    const { data, layout: look } = FIGURES[view.kind](view, now.frame);
    const fresh = !host.data;
    Plotly.react(host, data, look, CONFIG);
    if (fresh && view.kind === "curves") host.on("plotly_click", ({ points }) => go(nearest(points[0].x)));
  }
}

function nearest(x) {
  const positions = cases()[now.case].frames.positions ?? [];
  return positions.reduce((best, p, k) => (Math.abs(p - x) < Math.abs(positions[best] - x) ? k : best), 0);
}

let asked = 0;
function go(frame) {
  now.frame = Math.max(0, Math.min(cases()[now.case].frames.labels.length - 1, frame));
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(show);
}

let timer = 0;
function play() {
  if (timer) { clearInterval(timer); timer = 0; } else {
    const last = cases()[now.case].frames.labels.length - 1;
    if (now.frame === last) go(0);
    timer = setInterval(() => { if (now.frame >= last) play(); else go(now.frame + 1); }, 250);
  }
  by("play").textContent = timer ? "pause" : "play";
}

// The keys of a slider work wherever no other control has them.
const KEYS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
document.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  event.preventDefault();
  go(now.frame + KEYS[event.key]);
});
by("slider").addEventListener("input", () => go(Number(by("slider").value)));
by("play").addEventListener("click", play);
cases().forEach(({ name }, k) => by("case").add(new Option(name, k)));
by("case-label").hidden = cases().length < 2;
by("case").addEventListener("change", () => { now.case = Number(by("case").value); build(); show(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
build();
show();
