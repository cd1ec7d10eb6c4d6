// What the operator knows, live. All text goes in as text, never as HTML. A token that is typed
// stays in this variable: it goes with the tab.

const WORKERS_MS = 10_000;
const AGAIN_MS = 3_000;
const SVG = "http://www.w3.org/2000/svg";

const known = { ShuffleCluster: new Map(), ShuffleJob: new Map() };
const workers = new Map();
let token = "";
let chosen = "";
let detail = null;
let sizes = null;

const byId = (id) => document.getElementById(id);
const keyOf = (each) => `${each.namespace}/${each.name}`;

// -- what is drawn with ------------------------------------------------------------------------

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child ?? ""))));
  return made;
}

function table(columns, rows) {
  const head = columns.map(([name, kind]) => el("th", { class: kind, scope: "col" }, name));
  const body = rows.map(({ cells, ...attributes }) =>
    el("tr", attributes, ...cells.map((cell, n) => el("td", { class: columns[n][1] }, cell))));
  return el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

function size(count) {
  let value = count ?? 0;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return unit === "B" ? `${value} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

function ago(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)}${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))}s`;
}

const since = (time) => (time ? ago((Date.now() - Date.parse(time)) / 1000) : "-");

const PHASES = {
  Ready: "good", Running: "busy", Succeeded: "good", Degraded: "bad", Failed: "bad",
  serving: "good", full: "bad", draining: "busy", unreachable: "bad",
};
const phase = (word) => el("span", { class: PHASES[word] ?? "" }, word ?? "New");

function show(id, made, none) {
  byId(id).replaceChildren(made ?? el("p", { class: "none" }, none));
}

const shown = (each) => {
  const wanted = byId("namespace").value;
  return !wanted || each.namespace === wanted;
};

const sorted = (kind) =>
  [...known[kind].values()].filter(shown).sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));

// -- what is drawn -----------------------------------------------------------------------------

function draw() {
  drawNamespaces();
  drawFindings();
  drawClusters();
  drawWorkers();
  drawJobs();
  drawJob();
}

function drawNamespaces() {
  const select = byId("namespace");
  const all = new Set([...known.ShuffleCluster.values(), ...known.ShuffleJob.values()]
    .map((each) => each.namespace));
  const names = ["", ...[...all].sort()];
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  const before = select.value;
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name || "all")));
  select.value = names.includes(before) ? before : "";
}

function drawFindings() {
  const found = [...sorted("ShuffleCluster"), ...sorted("ShuffleJob")].flatMap((e) => e.findings);
  byId("findings").hidden = found.length === 0;
  byId("findings").querySelector("ul").replaceChildren(...found.map((each) => el("li", {},
    el("strong", { class: "bad" }, `${each.namespace}/${each.name}: ${each.reason}`),
    each.message ? ` ${each.message}` : "",
    each.remedy ? el("div", {}, el("code", {}, `→ ${each.remedy}`)) : "")));
}

function drawClusters() {
  const rows = sorted("ShuffleCluster").map((each) => {
    const storage = each.storage ?? {};
    const orphans = storage.orphans
      ? el("span", { class: "bad" }, `${storage.orphans} of ${size(storage.orphanBytes)}`)
      : storage.lastAuditTime ? "0" : "-";
    return { cells: [each.namespace, each.name, phase(each.phase), each.summary,
      size(storage.workerBytes), size(storage.storeBytes), orphans,
      since(storage.lastAuditTime)] };
  });
  show("clusters", rows.length && table([["namespace"], ["cluster"], ["phase"], ["workers"],
    ["on disks", "number"], ["in store", "number"], ["orphans", "number"],
    ["audited", "number"]], rows), "no ShuffleCluster that you may see");
}

function drawWorkers() {
  const rows = sorted("ShuffleCluster").flatMap((cluster) => {
    const said = workers.get(keyOf(cluster));
    if (!said) return [];
    if (said.problem) return [{ cells: [keyOf(cluster), said.problem, "", "", ""] }];
    return said.workers.map((each) => ({ cells: [
      keyOf(cluster), each.url, phase(each.state),
      each.disk_used === undefined ? "-" : el("span", {},
        el("meter", { min: 0, max: 1, high: 0.75, value: each.disk_used }),
        ` ${(100 * each.disk_used).toFixed(0)} %`),
      each.inflight_bytes === undefined ? "-" : size(each.inflight_bytes)] }));
  });
  show("workers", rows.length && table([["cluster"], ["worker"], ["state"],
    ["disk", "number"], ["in flight", "number"]], rows), "asking");
}

function stageBar(stage) {
  const text = stage.phase === "Done" ? " done" : ` ${stage.done}/${stage.tasks || "?"}`;
  return el("span", {}, `${stage.name} `,
    el("progress", { max: stage.tasks || 1, value: stage.phase === "Done" ? stage.tasks || 1
      : stage.done }), text);
}

function drawJobs() {
  const rows = sorted("ShuffleJob").map((job) => ({
    class: keyOf(job) === chosen ? "chosen" : undefined,
    "data-job": keyOf(job),
    cells: [job.namespace,
      el("button", { class: "link", onclick: () => choose(keyOf(job)) }, job.name),
      job.cluster.name, phase(job.phase),
      el("div", { class: "stages" }, ...(job.stages ?? []).map(stageBar)),
      size(job.workerBytes), size(job.storeBytes), job.storeRequests ?? 0,
      ago(Date.now() / 1000 - job.created)],
  }));
  show("jobs", rows.length && table([["namespace"], ["job"], ["cluster"], ["phase"], ["stages"],
    ["on disks", "number"], ["in store", "number"], ["requests", "number"], ["age", "number"]],
  rows), "no ShuffleJob that you may see");
}

function drawJob() {
  const job = known.ShuffleJob.get(chosen);
  byId("job").hidden = !job;
  if (!job) return;
  const stages = table([["stage"], ["phase"], ["tasks", "number"], ["tries", "number"],
    ["partitions", "number"], ["bytes", "number"]], (job.stages ?? []).map((each) => ({ cells: [
    each.name, phase(each.phase), `${each.done}/${each.tasks}`, each.attempts, each.partitions,
    size(each.bytes)] })));
  byId("job").replaceChildren(el("h2", {}, chosen), ...(job.stages?.length ? [stages] : []),
    ...drawUse(), ...drawSizes());
}

function drawUse() {
  if (!detail) return [el("p", { class: "none" }, "asking the workers")];
  if (detail.problem) return [el("p", { class: "none" }, detail.problem)];
  const verbs = Object.entries(detail.verbs).map(([verb, outcomes]) => ({ cells: [verb,
    Object.values(outcomes).reduce((sum, count) => sum + count, 0),
    Object.entries(outcomes).map(([outcome, count]) => `${outcome} ${count}`).join(", ")] }));
  const shuffles = detail.shuffles.map((each) => ({ cells: [
    el("button", { class: "link", onclick: () => askSizes(each) }, each.name), each.generation,
    each.partitions, size(each.disk_bytes), size(each.freed_bytes)] }));
  return [
    el("h3", {}, "Requests to the store, since the workers began"),
    el("p", {}, `${detail.requests} requests, of them ${detail.writes} writes; estimated `
      + `$${detail.dollars.toFixed(4)}`),
    ...(verbs.length ? [table([["verb"], ["requests", "number"], ["outcomes"]], verbs)] : []),
    el("h3", {}, "Shuffles: choose one for the sizes of its partitions"),
    shuffles.length ? table([["shuffle"], ["generation", "number"], ["partitions", "number"],
      ["on disks", "number"], ["freed", "number"]], shuffles)
      : el("p", { class: "none" }, "none on the workers"),
  ];
}

function drawSizes() {
  if (!sizes) return [];
  if (sizes.problem) return [el("p", { class: "none" }, sizes.problem)];
  const most = Math.max(...sizes.bins.map((bin) => bin.count));
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("class", "histogram");
  drawn.setAttribute("viewBox", "0 0 720 170");
  drawn.setAttribute("role", "img");
  const put = (tag, attributes, text) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    drawn.append(made);
    return made;
  };
  const width = 720 / sizes.bins.length;
  sizes.bins.forEach((bin, n) => {
    const height = bin.count ? Math.max(2, (132 * bin.count) / most) : 0;
    const bar = put("rect", { x: n * width + 1, y: 150 - height, width: Math.max(1, width - 2),
      height });
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${bin.count} partitions of ${size(bin.from)} to ${size(bin.to)}`;
    bar.append(title);
  });
  put("text", { x: 0, y: 165 }, size(sizes.smallest));
  put("text", { x: 720, y: 165, "text-anchor": "end" }, size(sizes.largest));
  put("text", { x: 0, y: 10 }, `${most} partitions`);
  return [el("h3", {}, `Partitions of ${sizes.name} by size`),
    el("p", {}, `${sizes.partitions} partitions from ${sizes.maps} maps, ${size(sizes.bytes)}; `
      + `median ${size(sizes.median)}, largest ${size(sizes.largest)}`), drawn];
}

// -- what is asked -----------------------------------------------------------------------------

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(`api/${path}`, { headers, cache: "no-store", ...options });
}

async function askJson(path) {
  try {
    const answer = await ask(path);
    const body = await answer.json();
    return answer.ok ? body : { problem: `${body.message}${body.hint ? ` (${body.hint})` : ""}` };
  } catch (error) {
    return { problem: `the operator does not answer: ${error.message}` };
  }
}

const pathOf = (key) => key.split("/").map(encodeURIComponent).join("/");

async function choose(key) {
  [chosen, detail, sizes] = [key, null, null];
  draw();
  const found = await askJson(`jobs/${pathOf(key)}`);
  if (chosen !== key) return;
  detail = found;
  draw();
}

async function askSizes(shuffle) {
  const key = chosen;
  const path = `shuffles/${encodeURIComponent(shuffle.name)}/${shuffle.generation}`;
  const found = await askJson(`jobs/${pathOf(key)}/${path}`);
  if (chosen !== key) return;
  sizes = { name: shuffle.name, ...found };
  draw();
}

async function askWorkers() {
  for (const key of [...known.ShuffleCluster.keys()]) {
    workers.set(key, await askJson(`clusters/${pathOf(key)}/workers`));
  }
  drawWorkers();
}

// -- what is told ------------------------------------------------------------------------------

function takeIn(event, data) {
  if (event === "denied") {
    login(data);
    return;
  }
  if (event !== "news") return;
  for (const each of data.clusters) known.ShuffleCluster.set(keyOf(each), each);
  for (const each of data.jobs) known.ShuffleJob.set(keyOf(each), each);
  for (const [kind, namespace, name] of data.gone) known[kind].delete(`${namespace}/${name}`);
  draw();
}

function say(text, kind) {
  byId("state").textContent = text;
  byId("state").className = kind ?? "";
}

function login(refusal) {
  byId("login").hidden = false;
  byId("main").hidden = true;
  byId("refusal").textContent = `${refusal.message}${refusal.hint ? ` (${refusal.hint})` : ""}`;
  say("no access", "away");
}

async function listen(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = /^event: (.*)$/m.exec(part)?.[1];
      const data = /^data: (.*)$/m.exec(part)?.[1];
      if (event && data) takeIn(event, JSON.parse(data));
    }
  }
}

async function follow() {
  for (;;) {
    try {
      const answer = await ask("events");
      if (answer.status === 401 || answer.status === 403) {
        login(await answer.json());
        return;
      }
      if (!answer.ok) throw new Error((await answer.json()).message);
      for (const kind of Object.values(known)) kind.clear();
      byId("login").hidden = true;
      byId("main").hidden = false;
      say("live", "live");
      setTimeout(askWorkers, 500);
      await listen(answer.body);
      if (!byId("login").hidden) return;
    } catch (error) {
      say(`the operator does not answer: ${error.message}`, "away");
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  follow();
});
byId("namespace").addEventListener("change", draw);
setInterval(() => byId("main").hidden || askWorkers(), WORKERS_MS);
setInterval(() => byId("main").hidden || (drawClusters(), drawJobs()), WORKERS_MS);
follow();
