// report_check.js - looks at an HTML report in a browser, for test_html.sh: returns what is wrong, a text each.
const wrong = [];
const check = (holds, what) => { if (!holds) wrong.push(what); };
const all = (selector, within) => Array.from((within || document).querySelectorAll(selector));
const tableOf = (title) => all('main table').find((t) => t.getAttribute('aria-label').includes(title));
const shown = (table) => Array.from(table.tBodies[0].rows).filter((r) => !r.hidden);
const columnOf = (table, head) => Array.from(table.tHead.rows[0].cells).findIndex((h) => h.textContent === head);
const texts = (table, head) => shown(table).map((r) => r.cells[columnOf(table, head)].textContent);
const press = (e, key) => e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
const filter = (table, text) => {
  const input = table.closest('.scroll').previousElementSibling.querySelector('input');
  input.value = text;
  input.dispatchEvent(new Event('input'));
  return table.closest('.scroll').previousElementSibling.querySelector('output').textContent;
};

// Tables: every head sorts, numbers as numbers, unknown last, a third press brings the order of the file back.
const table = tableOf('sweep: synth/gauss');
const heads = Array.from(table.tHead.rows[0].cells);
check(heads.every((h) => h.querySelector('button') && h.getAttribute('aria-sort') === 'none'), 'a head without a button or aria-sort');
const before = texts(table, 'parameters'), dense = columnOf(table, 'x dense');
const ascending = (values) => values.every((v, i) => i === 0 || values[i - 1] <= v);
heads[dense].querySelector('button').click();
check(heads[dense].getAttribute('aria-sort') === 'ascending', 'aria-sort after a click');
check(ascending(texts(table, 'x dense').filter((t) => t !== '-').map((t) => parseFloat(t))), 'x dense is not ascending: ' + texts(table, 'x dense'));
heads[dense].querySelector('button').click();
check(ascending(texts(table, 'x dense').filter((t) => t !== '-').map((t) => -parseFloat(t))), 'x dense is not descending');
heads[dense].querySelector('button').click();
check(texts(table, 'parameters').join() === before.join() && heads[dense].getAttribute('aria-sort') === 'none', 'the order of the file does not come back');
const mass = columnOf(table, 'mass');
for (let press2 = 0; press2 < 2; press2++) {
  heads[mass].querySelector('button').click();
  const values = texts(table, 'mass');
  check(values.includes('-') && values.indexOf('-') === values.filter((v) => v !== '-').length, 'unknown is not last: ' + values);
}
heads[mass].querySelector('button').click();
heads[columnOf(table, 'parameters')].querySelector('button').click();
const ks = texts(table, 'parameters').map((t) => Number(/k=(\d+)/.exec(t)?.[1])).filter((k) => k > 0);
check(ks.length > 3 && ascending(ks), 'parameters do not sort by their numbers: ' + ks);

// Filters: words, comparisons, both.
const total = shown(table).length;
check(/^\d+ rows$/.test(filter(table, '')), 'the count of rows');
check(filter(table, 'iceformer k=8') === shown(table).length + ' of ' + total + ' rows' && shown(table).every((r) => /iceformer/.test(r.textContent) && /k=8/.test(r.textContent)) && shown(table).length > 0, 'words do not filter');
filter(table, 'TOPK, k=8');
check(shown(table).length === 2 && texts(table, 'method').every((m) => m === 'topk'), 'words and words do not filter');
filter(table, 'mass > 0.01, mass<=1');
check(shown(table).length > 0 && texts(table, 'mass').every((m) => parseFloat(m) > 0.01), 'numbers do not filter: ' + texts(table, 'mass'));
filter(table, 'no such row');
check(shown(table).length === 0, 'nothing is filtered away');
filter(table, '');
check(shown(table).length === total, 'rows do not come back');

// Provenance: one stop of the tab key, arrows from there, a tip with the facts.
const tip = document.getElementById('tip'), cells = all('tbody td', table);
check(cells.filter((c) => c.tabIndex === 0).length === 1, 'a table is more than one stop of the tab key');
const cell = shown(table)[1].cells[dense];
cell.focus();
check(!tip.hidden && cell.getAttribute('aria-describedby') === 'tip', 'focus shows no tip');
for (const fact of ['status', 'seed', 'rounds', 'threads, ISA', 'commit', 'machine', 'BLAS', 'measured', 'digest', 'parameters']) check(all('dt', tip).some((d) => d.textContent === fact), 'the tip does not tell ' + fact);
check(/times faster than/.test(tip.textContent) && tip.textContent.includes(cell.textContent), 'the tip does not explain the number');
press(cell, 'ArrowDown');
check(document.activeElement === shown(table)[2].cells[dense], 'arrow down');
press(document.activeElement, 'ArrowLeft');
check(document.activeElement === shown(table)[2].cells[dense - 1], 'arrow left');
press(document.activeElement, 'Home');
check(document.activeElement === shown(table)[2].cells[0] && cells.filter((c) => c.tabIndex === 0).length === 1, 'home');
press(document.activeElement, 'Escape');
check(tip.hidden, 'escape leaves the tip');
document.activeElement.blur();

// Charts: what there is to draw is drawn, its marks are reached by keyboard and tell where they come from.
for (const kind of ['quality', 'speedup', 'heat']) check(all('figure[data-chart="' + kind + '"] svg g[role="img"]').length > 1, 'no chart of ' + kind);
check(all('figure[data-chart="speedup"]').every((f) => all('.panels > svg', f).length === 2), 'speed-ups do not stand together');
const marks = all('figure[data-chart="speedup"] g[role="img"]');
marks[0].focus();
check(!tip.hidden && /commit/.test(tip.textContent) && /\[/.test(tip.textContent), 'a mark without provenance or interval');
press(marks[0], 'ArrowRight');
check(document.activeElement === marks[1], 'arrows do not move between marks');
marks[1].blur();
check(all('figure svg *').every((e) => !/NaN|Infinity/.test(Array.from(e.attributes, (a) => a.value).join(' '))), 'a chart with NaN in it');
check(all('figure svg text').every((t) => !/NaN|undefined|null/.test(t.textContent)), 'a chart says NaN');

// What the charts compute, by hand: the front, crossovers in logarithms, axes.
const best = front([{ x: 3, goodness: 0.9 }, { x: 1, goodness: 0.5 }, { x: 2, goodness: 0.4 }, { x: 4, goodness: 0.9 }, { x: 3, goodness: 0.7 }]);
check(JSON.stringify(best.map((p) => [p.x, p.goodness])) === '[[1,0.5],[3,0.9]]', 'the front: ' + JSON.stringify(best));
const crossed = crossings([{ x: 1000, y: 0.5 }, { x: 4000, y: 2 }, { x: 8000, y: 3 }, { x: 16000, y: 0.9 }]);
check(crossed.length === 2 && Math.abs(crossed[0].n - 2000) < 1e-6 && crossed[0].up && !crossed[1].up && crossed[1].n > 8000, 'crossovers: ' + JSON.stringify(crossed));
const decade = axisOf([1, 10, NaN, -3], true, 0);
check(Math.abs(decade.place(Math.sqrt(10)) - 0.5) < 1e-12 && decade.ticks.includes(1) && decade.ticks.includes(10) && decade.ticks.every((t) => t >= 1 && t <= 10), 'a logarithmic axis: ' + decade.ticks);
check(axisOf([0.2, 0.9], false, 0).ticks.length >= 4, 'a linear axis');
const heat = all('figure[data-chart="heat"]')[0], values = all('.panels > svg', heat).map((svg) => all('g[role="img"] text', svg).length);
check(values.length >= 3 && values.every((n) => n === 4), 'a heat map of 2 x 2 has other cells: ' + values);
check(all('figure[data-chart="heat"] .panels svg text').some((t) => t.textContent === 'x vanilla') && all('figure[data-chart="heat"] .panels svg text').some((t) => t.textContent === 'x dense'), 'a heat map with one baseline alone');

// Colours: the button goes round, and the page follows.
const button = document.getElementById('theme'), colour = () => getComputedStyle(document.body).backgroundColor, seen = {};
for (let i = 0; i < 3; i++) {
  button.click();
  seen[button.textContent] = colour();
}
check(Object.keys(seen).length === 3 && seen['Colours: dark'] !== seen['Colours: light'], 'colours: ' + JSON.stringify(seen));
check(seen['Colours: auto'] === seen['Colours: ' + (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')], 'auto is not what the system asks for');

// Hostile names are text, and nothing of them has run.
check(window.hostile === undefined && all('img, iframe, object, embed, link').length === 0, 'a hostile name was taken for markup');
check(all('main h2').some((h) => h.textContent.includes('<script>window.hostile = 1</script>')), 'the hostile name is not shown');
check(all('nav a').length === all('main h2').length && all('nav a').every((a) => document.querySelector(a.getAttribute('href'))), 'the contents');
check(document.documentElement.scrollWidth <= innerWidth, 'the page is wider than the window: ' + document.documentElement.scrollWidth + ' > ' + innerWidth);
return wrong;
