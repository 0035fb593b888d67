#!/bin/sh
# The HTML report in headless Chromium, driven through chromedriver with curl: sorting, filters, focus, colours, charts, hostile names, nothing on the
# console. report_check.js is what runs in the page. Optional: skipped without chromium, chromedriver and curl.
# ICEBENCH_SHOTS=DIR keeps pictures: light and dark, 1280 and 400 wide.
. tests/cli/lib.sh

export ICEBENCH_ALLOW_DEBUG=1
for tool in chromium chromedriver curl; do
  command -v "$tool" >/dev/null && continue
  skipped html__in_a_browser__works "$tool is not installed (Debian: chromium chromium-driver curl)"
  exit 0
done

# Rows: a sweep over two parameters and two lengths, rows with a hostile name, a cell measured twice.
db=$work/r.db
printf 'name: sweep\ntask: synth/gauss\nshape: {h: 1, n: [64, 256], d: 16}\nthreads: 1\nmethods:\n  - vanilla\n  - dense\n  - topk: {k: [4, 8]}\n  - iceformer: {k: [2, 8], levels: [1, 2]}\nmeasure: {rounds: 6, max_seconds: 5}\n' >"$work/sweep.yaml"
"$ICEBENCH_BIN" run "$work/sweep.yaml" --db "$db" -q 2>"$work/err" || { broken setup "$(cat "$work/err")"; exit 1; }
"$ICEBENCH_BIN" run "$work/sweep.yaml" --db "$db" -q --force --filter method=topk 2>"$work/err" || { broken setup "$(cat "$work/err")"; exit 1; }
sql "$db" "UPDATE attempt SET digest = NULL, experiment = '<script>window.hostile = 1</script><img src=x onerror=\"window.hostile=2\">', label = '\"><b onmouseover=x>' WHERE method = 'dense' AND n = 64" >/dev/null
"$ICEBENCH_BIN" report --db "$db" --format html --allow-mixed >"$work/r.html" || { broken setup "no report"; exit 1; }

chromedriver --port=0 >"$work/driver" 2>&1 &
driver=$!
trap 'kill $driver 2>/dev/null; rm -rf "$work"' EXIT
for i in $(seq 100); do
  port=$(sed -n 's/.*successfully on port \([0-9]*\).*/\1/p' "$work/driver")
  [ -n "$port" ] && break
  sleep 0.1
done
ask() { curl -s -m 60 -H 'Content-Type: application/json' -d "$2" "http://localhost:$port/session$1"; } # PATH BODY
as_json() { sed 's/\\/\\\\/g; s/"/\\"/g; s/$/\\n/' "$1" | tr -d '\n'; }
cdp() { ask "/$session/goog/cdp/execute" "{\"cmd\": \"$1\", \"params\": $2}" >"$work/cdp"; }

profile=$work/profile
session=$(ask "" "{\"capabilities\": {\"alwaysMatch\": {\"browserName\": \"chrome\", \"goog:loggingPrefs\": {\"browser\": \"ALL\"}, \"goog:chromeOptions\": {\"args\":
  [\"--headless=new\", \"--no-sandbox\", \"--disable-gpu\", \"--disable-dev-shm-usage\", \"--user-data-dir=$profile\"]}}}}" | sed -n 's/.*"sessionId":"\([^"]*\)".*/\1/p')
if [ -z "$session" ]; then
  skipped html__in_a_browser__works "chromium does not start here: $(grep -v '^$' "$work/driver" | tail -1)"
  exit 0
fi

for look in light:1280 dark:1280 light:400 dark:400; do
  theme=${look%:*} width=${look#*:}
  cdp Emulation.setEmulatedMedia "{\"features\": [{\"name\": \"prefers-color-scheme\", \"value\": \"$theme\"}]}"
  cdp Emulation.setDeviceMetricsOverride "{\"width\": $width, \"height\": 1000, \"deviceScaleFactor\": 1, \"mobile\": false}"
  ask "/$session/url" "{\"url\": \"file://$work/r.html\"}" >"$work/out"
  ask "/$session/execute/async" '{"script": "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 100)));", "args": []}' >"$work/out"
  if [ -n "${ICEBENCH_SHOTS:-}" ]; then
    cdp Page.captureScreenshot '{"captureBeyondViewport": true}'
    mkdir -p "$ICEBENCH_SHOTS" && sed 's/.*"data":"\([^"]*\)".*/\1/' "$work/cdp" | base64 -d >"$ICEBENCH_SHOTS/$theme-$width.png"
  fi
  ask "/$session/execute/sync" "{\"script\": \"$(as_json tests/cli/report_check.js)\", \"args\": []}" >"$work/out"
  [ "$(cat "$work/out")" = '{"value":[]}' ] && why="" || why="$(head -c 2000 "$work/out")"
  verdict "html__${theme}_${width}__works" "$why"
done
# --against paper: the same page without charts.
"$ICEBENCH_BIN" report --db "$db" --format html --against paper >"$work/paper.html"
ask "/$session/url" "{\"url\": \"file://$work/paper.html\"}" >"$work/out"
ask "/$session/execute/sync" '{"script": "return [document.querySelectorAll(\"th button\").length > 5, document.querySelectorAll(\"figure\").length];", "args": []}' >"$work/out"
[ "$(cat "$work/out")" = '{"value":[true,0]}' ] && why="" || why="$(cat "$work/out")"
verdict html__against_paper__sorts_too "$why"

ask "/$session/se/log" '{"type": "browser"}' >"$work/out"
[ "$(cat "$work/out")" = '{"value":[]}' ] && why="" || why="$(head -c 1000 "$work/out")"
verdict html__console__has_nothing_to_say "$why"

# The policy of the page: a script that is not ours does not run.
sed 's#</main>#<script>window.hostile = 3</script></main>#' "$work/r.html" >"$work/hostile.html"
ask "/$session/url" "{\"url\": \"file://$work/hostile.html\"}" >"$work/out"
ask "/$session/execute/sync" '{"script": "return [window.hostile === undefined, document.scripts.length, document.getElementById(\"theme\") !== null];", "args": []}' >"$work/out"
[ "$(cat "$work/out")" = '{"value":[true,4,true]}' ] && why="" || why="$(cat "$work/out")"
verdict html__foreign_script__does_not_run "$why"

curl -s -m 20 -X DELETE "http://localhost:$port/session/$session" >/dev/null
exit $failed
