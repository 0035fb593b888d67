// charts.js - charts of a report as SVG, drawn from the rows in #data: quality against time with its Pareto front, speed-up by
// length with crossovers, heat maps over two parameters, history. Every mark can be reached by keyboard and tells its provenance.
'use strict';

// ---- Drawing

const svgNamespace = (() => { const t = document.createElement('template'); t.innerHTML = '<svg>'; return t.content.firstChild.namespaceURI; })();

function draw(tag, attributes, ...children) {
  const e = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes || {}))
    if (name === 'style') e.style.cssText = value; // the policy of the page forbids style attributes
    else e.setAttribute(name, typeof value === 'number' ? Math.round(value * 100) / 100 : value);
  e.append(...children.filter((c) => c !== null));
  return e;
}

const known = (v) => typeof v === 'number' && Number.isFinite(v);

function formatNumber(v) {
  if (v === 0) return '0';
  const size = Math.abs(v);
  if (size >= 1e5 || size < 1e-3) return v.toExponential(1).replace('.0e', 'e').replace('e+', 'e');
  return String(Number(v.toPrecision(3)));
}
const withInterval = (v, lo, hi, unit) => formatNumber(v) + unit + (known(lo) && known(hi) ? ' [' + formatNumber(lo) + ', ' + formatNumber(hi) + ']' : ' (no interval)');

// An axis over values: place(v) in 0..1, ticks. Logarithmic axes take positive values only.
function axisOf(values, logarithmic, pad) {
  const shape = logarithmic ? Math.log10 : (v) => v;
  const all = values.filter((v) => known(v) && (!logarithmic || v > 0)).map(shape);
  let lo = Math.min(...all), hi = Math.max(...all);
  const room = (hi - lo) * pad || (logarithmic ? 0.1 : Math.abs(hi) * 0.05 || 1);
  lo -= room, hi += room;
  const ticks = [];
  if (logarithmic) {
    const steps = hi - lo > 4 ? [1] : hi - lo > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    for (let e = Math.floor(lo); e <= hi; e++) for (const m of steps) if (e + Math.log10(m) >= lo && e + Math.log10(m) <= hi) ticks.push(m * 10 ** e);
  } else {
    const raw = (hi - lo) / 5, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    for (let v = Math.ceil(lo / step) * step; v <= hi; v += step) ticks.push(Math.round(v / step) * step);
  }
  return { place: (v) => (shape(v) - lo) / (hi - lo), ticks };
}

// A frame with grid, ticks and labels. X and Y turn values into pixels.
function frame(width, height, x, y, labels) {
  const left = 58, right = 14, top = 12, bottom = 46, w = width - left - right, h = height - top - bottom;
  const X = (v) => left + x.place(v) * w, Y = (v) => top + (1 - y.place(v)) * h;
  const svg = draw('svg', { viewBox: '0 0 ' + width + ' ' + height, role: 'group', 'aria-label': labels.title });
  let last = -1e9;
  for (const t of x.ticks) {
    svg.append(draw('line', { class: 'grid', x1: X(t), x2: X(t), y1: top, y2: top + h }));
    const text = labels.tick ? labels.tick(t) : formatNumber(t);
    if (X(t) - last < 4 + 7 * text.length) continue;
    last = X(t);
    svg.append(draw('text', { class: 'soft', x: X(t), y: top + h + 16, 'text-anchor': 'middle' }, text));
  }
  for (const t of y.ticks) {
    svg.append(draw('line', { class: 'grid', x1: left, x2: left + w, y1: Y(t), y2: Y(t) }));
    svg.append(draw('text', { class: 'soft', x: left - 6, y: Y(t) + 4, 'text-anchor': 'end' }, formatNumber(t)));
  }
  svg.append(draw('rect', { class: 'frame', x: left, y: top, width: w, height: h }));
  svg.append(draw('text', { x: left + w / 2, y: height - 8, 'text-anchor': 'middle' }, labels.x));
  svg.append(draw('text', { x: 0, y: 0, transform: 'translate(13 ' + (top + h / 2) + ') rotate(-90)', 'text-anchor': 'middle' }, labels.y));
  return { svg, X, Y, left, right: left + w, top, bottom: top + h };
}

const methods = [...new Set(DATA.rows.map((r) => r.method))];
function lookOf(method) {
  const fixed = { vanilla: 0, dense: 1 };
  const others = methods.filter((m) => !(m in fixed)), i = others.indexOf(method);
  return { color: 'var(--s' + (method in fixed ? fixed[method] : 2 + (i % 8)) + ')', shape: method in fixed ? fixed[method] : i % 5 };
}

function shapeOf(kind, x, y, size) {
  const s = size, at = (dx, dy) => (x + dx).toFixed(2) + ' ' + (y + dy).toFixed(2);
  return [
    () => 'M' + at(-s, -s) + 'L' + at(s, -s) + 'L' + at(s, s) + 'L' + at(-s, s) + 'Z',
    () => 'M' + at(0, -1.35 * s) + 'L' + at(1.35 * s, 0) + 'L' + at(0, 1.35 * s) + 'L' + at(-1.35 * s, 0) + 'Z',
    () => 'M' + at(0, -1.25 * s) + 'L' + at(1.2 * s, s) + 'L' + at(-1.2 * s, s) + 'Z',
    () => 'M' + at(0, 1.25 * s) + 'L' + at(1.2 * s, -s) + 'L' + at(-1.2 * s, -s) + 'Z',
    () => 'M' + at(-1.1 * s, 0) + 'a' + 1.1 * s + ' ' + 1.1 * s + ' 0 1 0 ' + 2.2 * s + ' 0a' + 1.1 * s + ' ' + 1.1 * s + ' 0 1 0 ' + -2.2 * s + ' 0Z',
  ][kind]();
}

// A mark with the tip of its row. Rows of fewer examples than asked for, and rows with a label of their own, are hollow.
function markOf(place, look, about, hollow) {
  const mark = draw('g', { role: 'img', 'aria-label': about.title + ', ' + about.value });
  if (place.bar) mark.append(draw('path', { d: place.bar, stroke: look.color, 'stroke-width': 1.2, fill: 'none', opacity: place.crowd > 12 ? 0.25 : 0.55 }));
  mark.append(draw('path', { class: 'aim', d: shapeOf(look.shape, place.x, place.y, 4.5), fill: hollow ? 'var(--card)' : look.color, stroke: look.color, 'stroke-width': 1.5 }));
  explains(mark, () => about);
  return mark;
}

function keyFor(name, look, dash, hollow) {
  const line = dash === undefined ? null : draw('path', { d: 'M0 6H26', stroke: look.color, 'stroke-width': 2, 'stroke-dasharray': dash });
  return make('li', null, draw('svg', { viewBox: '0 0 26 12', 'aria-hidden': 'true' }, line,
    draw('path', { d: shapeOf(look.shape, 13, 6, 4), fill: hollow ? 'var(--card)' : look.color, stroke: look.color })), name);
}

const isHollow = (r) => Boolean(r.partial) || /no retraining|stand-in/.test(r.label || '');

// Names whose boxes would cross others are left out. Returns whether there was room.
function namer(f) {
  const taken = [];
  return (text, x, y, color, anchor) => {
    const w = 6.2 * text.length + 6, l = anchor === 'start' ? x : anchor === 'end' ? x - w : x - w / 2, box = { l, r: l + w, t: y - 12, b: y + 3 };
    if (box.l < f.left || box.r > f.right || box.t < f.top || taken.some((o) => o.l < box.r && box.l < o.r && o.t < box.b && box.t < o.b)) return false;
    taken.push(box);
    f.svg.append(draw('text', { class: 'halo small', x, y, 'text-anchor': anchor || 'middle', style: 'fill:' + color }, text));
    return true;
  };
}

// A figure whose pictures are drawn anew for every width. paint(width) returns elements; choices: a list to choose from, or null.
function figureOf(kind, caption, note, paint, choices) {
  const place = make('div', null), f = make('figure', { 'data-chart': kind }, make('figcaption', null, make('b', null, caption), note));
  const state = { choice: 0, width: 0 };
  const update = () => {
    place.replaceChildren(...paint(state.width, state.choice));
    const marks = () => Array.from(place.querySelectorAll('g[role="img"]'));
    place.onkeydown = roving(marks, (key, from, all) => all[all.indexOf(from) + ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key] || NaN)]);
  };
  if (choices && choices.length > 1) {
    const select = make('select', { 'aria-label': 'What to show' }, ...choices.map((c, i) => make('option', { value: i }, c)));
    select.addEventListener('change', () => { state.choice = Number(select.value); update(); });
    f.append(select);
  }
  f.append(place);
  new ResizeObserver(() => {
    const width = Math.round(Math.max(280, Math.min(kind === 'heat' ? 1700 : 900, place.clientWidth)));
    if (!place.clientWidth || Math.abs(width - state.width) < 8) return;
    state.width = width;
    update();
  }).observe(place);
  return f;
}

// Pictures side by side.
function panelsOf(beside, pictures) {
  const panels = make('div', { class: 'panels' }, ...pictures);
  panels.style.gridTemplateColumns = 'repeat(' + beside + ', 1fr)';
  return panels;
}

// ---- Quality against time

const unitFor = (ns) => (ns >= 1e9 ? [1e9, 's'] : ns >= 1e6 ? [1e6, 'ms'] : ns >= 1e3 ? [1e3, 'us'] : [1, 'ns']);

function front(points) { // fastest first; one is on the front when it is better than all that are faster
  let best = -Infinity;
  return [...points].sort((a, b) => a.x - b.x || b.goodness - a.goodness).filter((p) => p.goodness > best && ((best = p.goodness), true));
}

const exactMethods = ['vanilla', 'dense']; // the baselines: their errors are rounding, and stand for no choice

function qualityPoint(i, accuracy, unit) {
  const r = DATA.rows[i];
  if (r.status !== 'ok' || !known(r.attention_ns) || (!accuracy && exactMethods.includes(r.method))) return null;
  const p = { row: i, x: r.attention_ns / unit, xlo: r.attention_ns_lo / unit, xhi: r.attention_ns_hi / unit };
  if (accuracy) Object.assign(p, { y: 100 * r.accuracy, ylo: known(r.accuracy_lo) ? 100 * r.accuracy_lo : NaN, yhi: known(r.accuracy_hi) ? 100 * r.accuracy_hi : NaN, goodness: r.accuracy });
  else Object.assign(p, { y: r.rel_l2_error, ylo: NaN, yhi: NaN, goodness: -r.rel_l2_error });
  return known(accuracy ? r.accuracy : r.rel_l2_error) && (accuracy || r.rel_l2_error > 0) ? p : null;
}

function paintQuality(rows, accuracy, width) {
  const times = rows.map((i) => DATA.rows[i].attention_ns).filter(known), [unit, unitName] = unitFor(Math.min(...times));
  const points = rows.map((i) => qualityPoint(i, accuracy, unit)).filter(Boolean);
  const exact = rows.filter((i) => exactMethods.includes(DATA.rows[i].method) && known(DATA.rows[i].attention_ns));
  const x = axisOf([...points.flatMap((p) => [p.x, p.xlo, p.xhi]), ...exact.map((i) => DATA.rows[i].attention_ns / unit)], true, 0.06);
  const y = axisOf(points.flatMap((p) => [p.y, p.ylo, p.yhi]), !accuracy, 0.08);
  const f = frame(width, Math.min(440, Math.max(300, width * 0.58)), x, y, { title: 'Quality against time', x: 'attention time, ' + unitName + ' (log; left is faster)',
    y: accuracy ? 'accuracy, %' : 'relative L2 error (log; down is better)' });
  const name = namer(f);
  for (const i of exact) {
    const at = f.X(DATA.rows[i].attention_ns / unit), look = lookOf(DATA.rows[i].method);
    f.svg.append(draw('line', { class: 'base', x1: at, x2: at, y1: f.top, y2: f.bottom, style: 'stroke:' + look.color }));
    const high = f.bottom - 6 - 13 * look.shape;
    if (!name(DATA.rows[i].method, at + 4, high, look.color, 'start')) name(DATA.rows[i].method, at - 4, high, look.color, 'end');
  }
  const best = front(points);
  if (best.length > 1) f.svg.append(draw('path', { d: 'M' + best.map((p, k) => (k ? 'H' + f.X(p.x).toFixed(1) + 'V' + f.Y(p.y).toFixed(1) : f.X(p.x).toFixed(1) + ' ' + f.Y(p.y).toFixed(1))).join(''), fill: 'none', stroke: 'var(--mark)', 'stroke-width': 1.8, opacity: 0.8 }));
  for (const p of points) {
    const r = DATA.rows[p.row], look = lookOf(r.method);
    let bar = known(p.ylo) && known(p.yhi) ? 'M' + f.X(p.x) + ' ' + f.Y(p.ylo) + 'V' + f.Y(p.yhi) : '';
    if (known(p.xlo) && known(p.xhi)) bar += 'M' + f.X(p.xlo) + ' ' + f.Y(p.y) + 'H' + f.X(p.xhi);
    const value = 'time ' + withInterval(p.x, p.xlo, p.xhi, ' ' + unitName) + '; ' + (accuracy ? 'accuracy ' + withInterval(p.y, p.ylo, p.yhi, ' %') : 'relative L2 error ' + formatNumber(p.y)) +
      '; x vanilla ' + withInterval(r.speedup_vanilla, r.speedup_vanilla_lo, r.speedup_vanilla_hi, '') + '; x dense ' + withInterval(r.speedup_dense, r.speedup_dense_lo, r.speedup_dense_hi, '');
    f.svg.append(markOf({ x: f.X(p.x), y: f.Y(p.y), bar, crowd: points.length }, look, { title: nameOf(p.row), value, rows: [p.row] }, isHollow(r)));
  }
  for (const p of best) name(DATA.rows[p.row].params_text || DATA.rows[p.row].method, f.X(p.x), f.Y(p.y) - 9, lookOf(DATA.rows[p.row].method).color);
  const shown = [...new Set(points.map((p) => DATA.rows[p.row].method))];
  const keys = make('ul', { class: 'keys' }, ...shown.map((m) => keyFor(m, lookOf(m))));
  if (points.some((p) => isHollow(DATA.rows[p.row]))) keys.append(keyFor('hollow: partial, stand-in or not retrained', { color: 'var(--soft)', shape: 4 }, undefined, true));
  return [f.svg, keys];
}

// Values of a column in a list of rows, in order.
const distinct = (rows, column) => [...new Set(rows.map((i) => DATA.rows[i][column]).filter((v) => v !== null && v !== undefined))].sort(compareKeys);
const lengthColumn = (rows) => (distinct(rows, 'length').length > 1 ? 'length' : 'n');

// "dev", "dev, seed 2": what tells rows of one setting apart, where these differ among `rows`; '' where they do not.
const varying = (i, rows) => ['split', 'seed'].filter((c) => distinct(rows, c).length > 1).map((c) => (c === 'seed' ? 'seed ' : '') + DATA.rows[i][c]).join(', ');

// Rows cut into sets that belong into one picture: [rows, name] each, longest sequences first.
function setsOf(rows, tensors) {
  const column = lengthColumn(rows), lengths = (tensors || column === 'length') && distinct(rows, column).length > 1, sets = new Map();
  for (const i of rows) {
    const r = DATA.rows[i], split = distinct(rows, 'split').length > 1 ? r.split : null;
    const name = [lengths ? (column === 'n' ? r.n + ' tokens' : 'length ' + r.length) : null, split].filter(Boolean).join(', ');
    if (!sets.has(name)) sets.set(name, []);
    sets.get(name).push(i);
  }
  return [...sets].map(([name, set]) => [set, name]).sort((a, b) => collator.compare(b[1], a[1]));
}

function qualityFigure(rows, tensors) {
  const fine = rows.filter((i) => DATA.rows[i].status === 'ok' && known(DATA.rows[i].attention_ns));
  const accuracy = fine.filter((i) => known(DATA.rows[i].accuracy)).length > 1;
  const choices = setsOf(fine, tensors).filter(([set]) => set.filter((i) => qualityPoint(i, accuracy, 1)).length > 1);
  if (!choices.length) return null;
  return figureOf('quality', accuracy ? 'Accuracy against attention time' : 'Error against attention time',
    (accuracy ? 'Up' : 'Down') + ' and left is better. Line: the Pareto front, rows that no other one beats in both. Bars: 95 % intervals. Dashed: the exact baselines, vanilla and dense.',
    (width, choice) => paintQuality(choices[choice][0], accuracy, width), choices.map(([, name]) => name));
}

// ---- Speed-up by length

const dashes = ['', '7 3', '2 3', '9 3 2 3', '1 4'];

// Where a line crosses 1, between neighbouring lengths, in logarithms.
function crossings(points) {
  const out = [];
  for (let k = 1; k < points.length; k++) {
    const a = points[k - 1], b = points[k], u = Math.log(a.y), v = Math.log(b.y);
    if (u * v < 0) out.push({ n: Math.exp(Math.log(a.x) + (Math.log(b.x) - Math.log(a.x)) * (u / (u - v))), up: v > 0 });
  }
  return out;
}

function seriesByLength(rows, column) {
  const by = new Map();
  for (const i of rows) {
    const r = DATA.rows[i];
    if (r.status !== 'ok' || !known(r[column]) || !known(r.speedup_dense) || r.method === 'dense') continue;
    const name = [nameOf(i), varying(i, rows)].filter(Boolean).join(', ');
    if (!by.has(name)) by.set(name, { name, method: r.method, rows: [] });
    by.get(name).rows.push(i);
  }
  const all = [...by.values()].filter((s) => new Set(s.rows.map((i) => DATA.rows[i][column])).size > 1);
  const count = {};
  for (const s of all) {
    s.rows.sort((a, b) => DATA.rows[a][column] - DATA.rows[b][column]);
    s.look = lookOf(s.method);
    s.dash = dashes[(count[s.method] = (count[s.method] ?? -1) + 1) % dashes.length];
  }
  return all;
}

function paintSpeedup(series, column, against, width, x, y) {
  const f = frame(width, Math.max(260, width * 0.66), x, y, { title: 'Speed-up against ' + against, tick: String, x: column === 'n' ? 'tokens (log)' : 'length (log)', y: 'x ' + against + ' (log; up is faster)' });
  f.svg.append(draw('line', { class: 'base', x1: f.left, x2: f.right, y1: f.Y(1), y2: f.Y(1) }));
  f.svg.append(draw('text', { class: 'small halo', x: f.right - 4, y: f.Y(1) - 5, 'text-anchor': 'end' }, '1 = as fast as ' + against));
  for (const s of series) {
    const points = s.rows.map((i) => ({ row: i, x: DATA.rows[i][column], y: DATA.rows[i]['speedup_' + against], lo: DATA.rows[i]['speedup_' + against + '_lo'], hi: DATA.rows[i]['speedup_' + against + '_hi'] })).filter((p) => known(p.y));
    if (s.method === against || !points.length) continue;
    f.svg.append(draw('path', { d: 'M' + points.map((p) => f.X(p.x).toFixed(1) + ' ' + f.Y(p.y).toFixed(1)).join('L'), fill: 'none', stroke: s.look.color, 'stroke-width': 2, 'stroke-dasharray': s.dash }));
    for (const c of crossings(points)) f.svg.append(draw('circle', { cx: f.X(c.n), cy: f.Y(1), r: 6, fill: 'none', stroke: s.look.color, 'stroke-width': 1.5 }));
    for (const p of points) {
      const bar = known(p.lo) && known(p.hi) ? 'M' + f.X(p.x) + ' ' + f.Y(p.lo) + 'V' + f.Y(p.hi) : '';
      const about = { title: s.name + ', ' + (column === 'n' ? p.x + ' tokens' : 'length ' + p.x), value: 'x ' + against + ' ' + withInterval(p.y, p.lo, p.hi, ''), rows: [p.row] };
      f.svg.append(markOf({ x: f.X(p.x), y: f.Y(p.y), bar }, s.look, about, isHollow(DATA.rows[p.row])));
    }
  }
  return f.svg;
}

function crossoverText(series, column, against) {
  const said = series.flatMap((s) => crossings(s.rows.map((i) => ({ x: DATA.rows[i][column], y: DATA.rows[i]['speedup_' + against] })).filter((p) => known(p.y) && s.method !== against))
    .map((c) => s.name + (c.up ? ' overtakes ' : ' falls behind ') + against + ' at about ' + formatNumber(Number(c.n.toPrecision(2)))));
  return make('p', { class: 'soft' }, 'Crossovers with ' + against + ' (rings, interpolated): ' + (said.join('; ') || 'none between the lengths measured') + '.');
}

function speedupFigure(rows) {
  const column = lengthColumn(rows), series = seriesByLength(rows, column);
  if (distinct(rows, column).length < 2 || !series.length) return null;
  const values = ['vanilla', 'dense'].flatMap((b) => series.filter((s) => s.method !== b).flatMap((s) => s.rows.flatMap((i) => ['', '_lo', '_hi'].map((e) => DATA.rows[i]['speedup_' + b + e]))));
  const x = axisOf(distinct(rows, column), true, 0.06), y = axisOf([1, ...values], true, 0.06);
  x.ticks = distinct(rows, column);
  return figureOf('speedup', 'Speed-up by ' + (column === 'n' ? 'length' : 'number of lines or topics'), 'Both baselines on the same axes: above the dashed line a method is faster than the baseline, in the same run. Bars: 95 % intervals.',
    (width) => {
      const beside = width > 560 ? 2 : 1, one = (width - 12 * (beside - 1)) / beside;
      return [panelsOf(beside, ['vanilla', 'dense'].map((b) => paintSpeedup(series, column, b, one, x, y))), make('ul', { class: 'keys' }, ...series.map((s) => keyFor(s.name, s.look, s.dash))), crossoverText(series, column, 'vanilla'), crossoverText(series, column, 'dense')];
    });
}

// ---- Heat maps

// Slices of a sweep in which just two parameters of a method vary, the fullest first: {method, p, q, rows, fixed}.
function slicesOf(rows) {
  const out = [];
  for (const method of new Set(rows.map((i) => DATA.rows[i].method))) {
    const own = rows.filter((i) => DATA.rows[i].method === method && DATA.rows[i].status === 'ok' && DATA.rows[i].params && typeof DATA.rows[i].params === 'object');
    const keys = own.length ? Object.keys(DATA.rows[own[0]].params).filter((k) => new Set(own.map((i) => DATA.rows[i].params[k])).size > 1) : [];
    for (const p of keys) for (const q of keys.slice(keys.indexOf(p) + 1)) {
      const slices = new Map();
      for (const i of own) {
        const r = DATA.rows[i], rest = JSON.stringify([Object.entries(r.params).filter(([k]) => k !== p && k !== q), r.n, r.length, r.split, r.seed]);
        if (!slices.has(rest)) slices.set(rest, []);
        slices.get(rest).push(i);
      }
      for (const slice of slices.values()) {
        const size = (k) => new Set(slice.map((i) => DATA.rows[i].params[k])).size;
        const fixed = keys.filter((k) => k !== p && k !== q).map((k) => k + '=' + DATA.rows[slice[0]].params[k]).join(' ');
        if (size(p) > 1 && size(q) > 1 && slice.length >= 4 && slice.length >= 0.6 * size(p) * size(q)) out.push({ method, p, q, rows: slice, fixed });
      }
    }
  }
  return out.sort((a, b) => b.rows.length - a.rows.length).slice(0, 12);
}

const heatMeasures = {
  speedup_vanilla: { name: 'x vanilla', baseline: 1 }, speedup_dense: { name: 'x dense', baseline: 1 },
  accuracy: { name: 'accuracy' }, mass: { name: 'softmax mass' }, rel_l2_error: { name: 'relative L2 error', reverse: true },
};

// A shade between two colours: around 1 for ratios, from worst to best for the rest. strength 0..1, warm: on the bad side.
function shades(values, measure) {
  const fine = values.filter(known);
  if (measure.baseline) {
    const most = Math.max(...fine.map((v) => Math.abs(Math.log(v))), Math.log(1.05));
    return (v) => ({ warm: v < 1, strength: Math.abs(Math.log(v)) / most });
  }
  const lo = Math.min(...fine), span = Math.max(...fine) - lo;
  return (v) => ({ warm: false, strength: span ? (measure.reverse ? 1 - (v - lo) / span : (v - lo) / span) : 0.5 });
}
const tint = ({ warm, strength }) => 'rgb(var(' + (warm ? '--cold' : '--hot') + ') / ' + (0.06 + 0.6 * strength).toFixed(2) + ')';

function paintHeat(slice, column, width) {
  const measure = heatMeasures[column], order = (k) => [...new Set(slice.rows.map((i) => DATA.rows[i].params[k]))].sort(compareKeys);
  const ps = order(slice.p), qs = order(slice.q), shade = shades(slice.rows.map((i) => DATA.rows[i][column]), measure);
  const left = 52, top = 22, w = (width - left - 4) / qs.length, h = 30, height = top + ps.length * h + 36;
  const svg = draw('svg', { viewBox: '0 0 ' + width + ' ' + height, role: 'group', 'aria-label': measure.name + ' over ' + slice.p + ' and ' + slice.q });
  svg.append(draw('text', { x: left + (width - left) / 2, y: 14, 'text-anchor': 'middle', 'font-weight': 600 }, measure.name));
  svg.append(draw('text', { x: left + (width - left) / 2, y: height - 4, 'text-anchor': 'middle' }, slice.q));
  svg.append(draw('text', { transform: 'translate(12 ' + (top + ps.length * h / 2) + ') rotate(-90)', 'text-anchor': 'middle' }, slice.p));
  qs.forEach((q, c) => svg.append(draw('text', { class: 'soft', x: left + (c + 0.5) * w, y: top + ps.length * h + 15, 'text-anchor': 'middle' }, String(q))));
  ps.forEach((p, r) => {
    svg.append(draw('text', { class: 'soft', x: left - 6, y: top + (r + 0.5) * h + 4, 'text-anchor': 'end' }, String(p)));
    qs.forEach((q, c) => {
      const i = slice.rows.find((k) => DATA.rows[k].params[slice.p] === p && DATA.rows[k].params[slice.q] === q);
      const v = i === undefined ? null : DATA.rows[i][column];
      const box = { x: left + c * w + 1, y: top + r * h + 1, width: w - 2, height: h - 2, class: 'aim cell' };
      const text = draw('text', { x: left + (c + 0.5) * w, y: top + (r + 0.5) * h + 4, 'text-anchor': 'middle', class: w < 44 ? 'small' : '' }, known(v) ? formatNumber(v) : '-');
      if (!known(v)) return svg.append(draw('rect', { ...box, fill: 'none', class: 'grid' }), text);
      const about = { title: nameOf(i), value: measure.name + ' ' + withInterval(v, DATA.rows[i][column + '_lo'], DATA.rows[i][column + '_hi'], ''), rows: [i] };
      const cell = draw('g', { role: 'img', 'aria-label': about.title + ', ' + about.value }, draw('rect', { ...box, fill: tint(shade(v)) }), text);
      explains(cell, () => about);
      return svg.append(cell);
    });
  });
  return svg;
}

function heatFigure(rows) {
  const slices = slicesOf(rows);
  if (!slices.length) return null;
  const name = (s) => s.method + ': ' + s.p + ' x ' + s.q + (s.fixed ? ' (' + s.fixed + ')' : '') + (distinct(s.rows, 'n').length === 1 && distinct(rows, 'n').length > 1 ? ', ' + DATA.rows[s.rows[0]].n + ' tokens' : '') + (varying(s.rows[0], rows) ? ', ' + varying(s.rows[0], rows) : '');
  return figureOf('heat', 'Two parameters at a time', slices.length > 1 ? '' : name(slices[0]), (width, choice) => {
    const s = slices[choice], quality = ['accuracy', 'mass', 'rel_l2_error'].filter((c) => new Set(s.rows.map((i) => DATA.rows[i][c]).filter(known)).size > 1);
    const columns = ['speedup_vanilla', 'speedup_dense', ...quality].filter((c) => s.rows.some((i) => known(DATA.rows[i][c])));
    const beside = Math.max(1, Math.min(columns.length, Math.floor(width / 330)));
    return [panelsOf(beside, columns.map((c) => paintHeat(s, c, (width - 12 * (beside - 1)) / beside))), make('p', null, 'Speed-ups: blue is faster than the baseline, orange slower, pale is 1. Quality: the stronger the colour the better. Intervals and origin: on hover or focus.')];
  }, slices.map(name));
}

// ---- History

const lineName = (l) => l.method + (l.params_text ? ' ' + l.params_text : '') + (known(l.n) ? ', ' + l.n + ' tokens' : '');

function paintHistory(lines, width) {
  const stamps = [...new Set(lines.flatMap((l) => l.points.map((p) => p.created_utc + ' ' + p.git_commit)))].sort();
  const at = (p) => 1 + stamps.indexOf(p.created_utc + ' ' + p.git_commit);
  const values = lines.flatMap((l) => l.points.flatMap((p) => [p.value, p.lo, p.hi])).filter(known), [unit, unitName] = unitFor(Math.min(...values));
  const x = axisOf([0.7, stamps.length + 0.3], false, 0), y = axisOf(values.map((v) => v / unit), true, 0.06);
  x.ticks = stamps.map((s, k) => (k && s.split(' ')[1] === stamps[k - 1].split(' ')[1] ? 0 : k + 1)).filter(Boolean);
  const f = frame(width, Math.min(440, Math.max(280, width * 0.5)), x, y, { title: 'History', x: 'measurements in the order of time, by commit', y: 'attention time, ' + unitName + ' (log)',
    tick: (t) => stamps[t - 1].split(' ')[1].slice(0, 7) });
  lines.forEach((l, k) => {
    const look = { color: 'var(--s' + (2 + (k % 8)) + ')', shape: k % 5 };
    f.svg.append(draw('path', { d: l.points.map((p, j) => (j && l.points[j - 1].level === p.level ? 'L' : 'M') + f.X(at(p)).toFixed(1) + ' ' + f.Y(p.level / unit).toFixed(1)).join(''), fill: 'none', stroke: look.color, 'stroke-width': 2 }));
    for (const s of l.steps) f.svg.append(draw('line', { x1: f.X(at(l.points[s.point])), x2: f.X(at(l.points[s.point])), y1: f.top, y2: f.bottom, stroke: look.color, 'stroke-dasharray': '2 3' }));
    for (const p of l.points) {
      const bar = known(p.lo) && known(p.hi) ? 'M' + f.X(at(p)) + ' ' + f.Y(p.lo / unit) + 'V' + f.Y(p.hi / unit) : '';
      const about = { title: lineName(l), value: 'attention ' + withInterval(p.value / unit, p.lo / unit, p.hi / unit, ' ' + unitName), legend: 'commit ' + p.git_commit + (p.git_dirty ? ' with local changes' : '') + ', ' + p.created_utc + ', ' + l.machine + ', status ok' };
      f.svg.append(markOf({ x: f.X(at(p)), y: f.Y(p.value / unit), bar }, look, about, Boolean(p.git_dirty)));
    }
  });
  const keys = lines.map((l, k) => keyFor(lineName(l), { color: 'var(--s' + (2 + (k % 8)) + ')', shape: k % 5 }, ''));
  if (lines.some((l) => l.points.some((p) => p.git_dirty))) keys.push(keyFor('hollow: with uncommitted changes', { color: 'var(--soft)', shape: 4 }, undefined, true));
  return [f.svg, make('ul', { class: 'keys' }, ...keys)];
}

function historySection() {
  const places = new Map(), most = 6;
  for (const l of DATA.history.filter((h) => h.points.length > 1)) {
    const key = l.task + ', ' + l.model + ', ' + l.machine;
    if (!places.has(key)) places.set(key, []);
    places.get(key).push(l);
  }
  const figures = [];
  for (const [name, lines] of places)
    for (let k = 0; k < lines.length; k += most)
      figures.push(figureOf('history', name, 'Every measurement of a cell that the database keeps. Lines: levels; dotted: where the level changed (icebench history). Bars: 95 % intervals.', (width) => paintHistory(lines.slice(k, k + most), width)));
  return figures.length ? make('section', null, make('h2', null, 'History'), make('div', { class: 'charts' }, ...figures)) : null;
}

// ---- All charts

function drawCharts() {
  document.querySelectorAll('section[data-group]').forEach((section) => {
    const g = DATA.groups[Number(section.dataset.group)], rows = Array.from({ length: g.to - g.from }, (_, k) => g.from + k);
    const figures = [qualityFigure(rows, g.tensors), speedupFigure(rows), heatFigure(rows)].filter(Boolean);
    if (figures.length) section.querySelector('.scroll').before(make('div', { class: 'charts' }, ...figures));
  });
  const history = historySection();
  if (history) document.querySelector('main > section:last-of-type').after(history);
}
