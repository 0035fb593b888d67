// tables.js - what a report does when it is read: tables that sort and filter, provenance of every number, light and dark.
// The tables stand in the document already; without this script they are merely still. Data of the rows: #data (report_html.c).
'use strict';

const DATA = JSON.parse(document.getElementById('data')?.textContent || '{"rows":[],"groups":[],"history":[],"build":{}}');

// An element with attributes and children; text goes in as text, never as markup.
function make(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) e.setAttribute(name, value);
  e.append(...children.filter((c) => c !== null));
  return e;
}

// ---- Provenance

// Facts of a row as [name, text] pairs; unknown ones are left out.
function factsOf(row) {
  const r = DATA.rows[row], b = DATA.build[r.cell_id] || {};
  const known = (v) => v !== null && v !== undefined && v !== '';
  const facts = [
    ['status', r.status + (known(r.reason) ? ': ' + r.reason : '')],
    ['label', r.label],
    ['partial', r.partial ? 'yes: fewer examples than the experiment asks for' : null],
    ['examples', known(r.split) ? (r.examples ?? 'all') + ' of ' + r.split : r.examples], ['seed', r.seed], ['rounds', r.rounds], ['timed inputs', r.timed_inputs],
    ['threads, ISA', r.threads + ', ' + r.isa],
    ['tokens', r.n], ['parameters', JSON.stringify(r.params)],
    ['commit', r.git_commit + (r.git_dirty ? ' + local changes ' + (b.git_diff || '').slice(0, 12) : '')],
    ['build', [b.version, r.variant, r.compiler].filter(known).join(', ')],
    ['machine', [r.machine, r.cores + ' cores', b.kernel || r.os].filter(known).join(', ')],
    ['BLAS', r.blas], ['data', r.data_hash], ['weights', r.model_hash],
    ['measured', [r.created_utc, r.wall_ms ? (r.wall_ms / 1000).toFixed(1) + ' s' : null].filter(known).join(', ')],
    ['cell', [r.cell_id, 'attempt ' + r.attempt, 'method version ' + r.method_version].join(', ')],
    ['digest', b.digest],
  ];
  return facts.filter(([, v]) => known(v)).map(([k, v]) => [k, String(v)]);
}

const nameOf = (row) => DATA.rows[row].method + (DATA.rows[row].params_text ? ' ' + DATA.rows[row].params_text : '');

const tip = make('div', { id: 'tip', role: 'tooltip', hidden: '' });

// Shows a tip beside an element. about: {title, value, legend, rows}; the facts of the first row, and of the others only the name and commit.
function showTip(at, about) {
  tip.replaceChildren(make('b', null, about.title));
  for (const text of [about.value, about.legend]) if (text) tip.append(make('p', null, text));
  for (const [i, row] of (about.rows || []).entries()) {
    const list = make('dl', null);
    if (i) list.append(make('dt', null, 'against'), make('dd', null, nameOf(row)));
    for (const [k, v] of factsOf(row)) if (!i || ['commit', 'machine', 'seed', 'status', 'label'].includes(k)) list.append(make('dt', null, k), make('dd', null, v));
    tip.append(list);
  }
  tip.hidden = false;
  const box = at.getBoundingClientRect(), w = tip.offsetWidth, h = tip.offsetHeight;
  const left = Math.max(8, Math.min(box.left, innerWidth - w - 8));
  const below = box.bottom + 6 + h <= innerHeight, above = box.top - 6 - h >= 0;
  tip.style.left = left + 'px';
  tip.style.top = (below ? box.bottom + 6 : above ? box.top - 6 - h : Math.max(8, innerHeight - h - 8)) + 'px';
  at.setAttribute('aria-describedby', 'tip');
}

function hideTip(at) {
  tip.hidden = true;
  if (at) at.removeAttribute('aria-describedby');
}

// Shows what `about` returns while the pointer or the focus is on the element.
function explains(e, about) {
  const show = () => { const a = about(); if (a) showTip(e, a); };
  e.addEventListener('mouseenter', show);
  e.addEventListener('focus', show);
  e.addEventListener('mouseleave', () => hideTip(e));
  e.addEventListener('blur', () => hideTip(e));
}

// Of a list of elements one is reached by tab, the others from it.
function keepReachable(all) {
  if (all.some((e) => e.getAttribute('tabindex') === '0')) return;
  all.forEach((e, i) => e.setAttribute('tabindex', i ? '-1' : '0'));
}

// A handler of keys for such a list. step(key, from, all) names the next one.
function roving(elements, step) {
  keepReachable(elements());
  return (event) => {
    const all = elements(), to = step(event.key, event.target.closest('[tabindex]'), all);
    if (!to) return;
    event.preventDefault();
    for (const e of all) if (e.getAttribute('tabindex') === '0') e.setAttribute('tabindex', '-1');
    to.setAttribute('tabindex', '0');
    to.focus();
  };
}

// ---- Sorting

// What a cell sorts by: its number, else its text; null: unknown, which comes last in both directions.
function keyOf(cell) {
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  const text = cell.textContent.trim();
  if (text === '' || text === '-') return null;
  const number = Number(text.replace(/^\+/, ''));
  return Number.isNaN(number) ? text : number;
}

const collator = new Intl.Collator('en', { numeric: true });

function compareKeys(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return collator.compare(String(a), String(b));
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const place = (row) => Number(row.dataset.place);
  if (!direction) rows.sort((a, b) => place(a) - place(b));
  else
    rows.sort((a, b) => {
      const x = keyOf(a.cells[column]), y = keyOf(b.cells[column]);
      if (x === null || y === null) return (x === null) - (y === null) || place(a) - place(b);
      return direction * compareKeys(x, y) || place(a) - place(b);
    });
  body.append(...rows);
}

function addSorting(table) {
  Array.from(table.tBodies[0].rows).forEach((row, i) => (row.dataset.place = i));
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = make('button', { type: 'button' }, head.textContent);
    head.replaceChildren(button);
    head.setAttribute('aria-sort', 'none');
    explains(button, () => (head.dataset.legend ? { title: button.textContent, legend: head.dataset.legend } : null));
    button.addEventListener('click', () => {
      const next = { none: 'ascending', ascending: 'descending', descending: 'none' }[head.getAttribute('aria-sort')];
      heads.forEach((h) => h.setAttribute('aria-sort', h === head ? next : 'none'));
      sortBy(table, column, { ascending: 1, descending: -1, none: 0 }[next]);
    });
  });
}

// ---- Filtering

// "iceformer k=8, x dense > 1": parts between commas must all hold. A part that names a column and a number compares; any other
// must occur word by word.
function parseFilter(text, heads) {
  return text.split(',').map((part) => part.trim().toLowerCase()).filter(Boolean).map((part) => {
    const m = /^(.+?)\s*(<=|>=|<|>|=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)$/.exec(part);
    const column = m ? heads.indexOf(m[1]) : -1;
    if (column < 0) {
      const words = part.split(/\s+/);
      return (row) => { const all = row.textContent.toLowerCase(); return words.every((w) => all.includes(w)); };
    }
    const holds = { '<': (a, b) => a < b, '>': (a, b) => a > b, '<=': (a, b) => a <= b, '>=': (a, b) => a >= b, '=': (a, b) => a === b }[m[2]];
    return (row) => { const key = keyOf(row.cells[column]); return typeof key === 'number' && holds(key, Number(m[3])); };
  });
}

function markNotes(table) { // what a reader must know of a row
  const column = Array.from(table.tHead.rows[0].cells).findIndex((h) => h.textContent === 'note');
  if (column >= 0) for (const row of table.tBodies[0].rows) row.cells[column].classList.add('note');
}

function addFilter(table, name) {
  const heads = Array.from(table.tHead.rows[0].cells, (h) => h.textContent.trim().toLowerCase());
  const rows = Array.from(table.tBodies[0].rows);
  const count = make('output', { 'aria-live': 'polite' });
  const input = make('input', { type: 'search', placeholder: 'words, x dense > 1', 'aria-label': 'Filter rows of ' + name, spellcheck: 'false' });
  const update = () => {
    const parts = parseFilter(input.value, heads);
    for (const row of rows) row.hidden = !parts.every((holds) => holds(row));
    for (const row of rows) if (row.hidden) row.querySelectorAll('td').forEach((cell) => cell.setAttribute('tabindex', '-1'));
    const shown = rows.filter((row) => !row.hidden).length;
    keepReachable(Array.from(table.querySelectorAll('tbody tr:not([hidden]) td')));
    count.textContent = (shown === rows.length ? '' : shown + ' of ') + rows.length + (rows.length === 1 ? ' row' : ' rows');
  };
  input.addEventListener('input', update);
  update();
  table.closest('.scroll').before(make('div', { class: 'tools' }, make('label', null, 'Filter '), input, count));
}

// ---- Cells: arrow keys move, focus and pointer tell where the number comes from

function stepInTable(key, from) {
  const row = from.parentElement, shown = Array.from(row.parentElement.rows).filter((r) => !r.hidden);
  const at = shown.indexOf(row), column = from.cellIndex;
  const cell = (r, c) => (r && r.cells[c]) || null;
  switch (key) {
    case 'ArrowRight': return cell(row, column + 1);
    case 'ArrowLeft': return cell(row, column - 1);
    case 'ArrowDown': return cell(shown[at + 1], column);
    case 'ArrowUp': return cell(shown[at - 1], column);
    case 'Home': return cell(row, 0);
    case 'End': return cell(row, row.cells.length - 1);
    default: return null;
  }
}

function addProvenance(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  const cells = () => Array.from(table.tBodies[0].querySelectorAll('tr:not([hidden]) td'));
  table.setAttribute('role', 'grid');
  table.tBodies[0].addEventListener('keydown', roving(cells, stepInTable));
  for (const cell of cells()) {
    const row = cell.parentElement, head = heads[cell.cellIndex];
    explains(cell, () => {
      const rows = [row.dataset.row, row.dataset.other].filter((r) => r !== undefined).map(Number);
      const title = (rows.length ? nameOf(rows[0]) + ': ' : '') + head.textContent;
      return { title, value: cell.textContent === '-' ? 'unknown' : cell.textContent, legend: head.dataset.legend, rows };
    });
  }
}

// ---- The page

function addThemes() {
  const root = document.documentElement, button = make('button', { type: 'button', id: 'theme' });
  const next = { auto: 'dark', dark: 'light', light: 'auto' };
  const set = (theme) => {
    if (theme === 'auto') delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = 'Colours: ' + theme;
    try { localStorage.setItem('icebench-theme', theme); } catch { /* no storage for files in some browsers */ }
  };
  let stored = null;
  try { stored = localStorage.getItem('icebench-theme'); } catch { /* as above */ }
  set(stored in next ? stored : 'auto');
  button.addEventListener('click', () => set(next[root.dataset.theme || 'auto']));
  document.querySelector('header').append(button);
}

function addContents() {
  const list = make('ul', null);
  document.querySelectorAll('main h2').forEach((h, i) => {
    h.id = 's' + i;
    list.append(make('li', null, make('a', { href: '#s' + i }, h.textContent)));
  });
  document.querySelector('header').after(make('nav', { 'aria-label': 'Contents' }, list));
}

function start() {
  document.body.append(tip);
  addThemes();
  if (typeof drawCharts === 'function') drawCharts();
  addContents();
  document.querySelectorAll('main table').forEach((table) => {
    const head = Array.from(document.querySelectorAll('main h2')).filter((h) => h.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING).pop();
    table.setAttribute('aria-label', head ? head.textContent : 'Table');
    markNotes(table);
    addSorting(table);
    addFilter(table, table.getAttribute('aria-label'));
    addProvenance(table);
  });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hideTip(document.activeElement); });
}

document.addEventListener('DOMContentLoaded', start);
