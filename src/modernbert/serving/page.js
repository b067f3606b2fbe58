// The page at / of a server: it chooses a route, sends its form and shows the answer.
"use strict";
const $ = id => document.getElementById(id);
const LONGEST = 60000;  // characters of an answer that are shown

let description, routes = [], current = "";

function headers() {
  const key = $("key").value.trim();
  return {"content-type": "application/json", ...(key && {authorization: "Bearer " + key})};
}

// The path of a route, with the model's name before it where several are served.
function pathOf(path) {
  const several = $("model").options.length > 1 && description.paths[path].post;
  return several ? `/${encodeURIComponent($("model").value)}${path}` : path;
}

async function ask(path, body) {
  const answer = await fetch(pathOf(path),
    {method: "POST", headers: headers(), body: JSON.stringify(body)});
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

const resolve = schema => schema.$ref ? description.components.schemas[schema.$ref.split("/").pop()] : schema;

// A body with the first example of each field that must be there.
function example(schema) {
  schema = resolve(schema);
  if (schema.examples) return schema.examples[0];
  if (schema.type !== "object") return schema.default ?? null;
  const needed = (schema.required || []).map(name => [name, example(schema.properties[name])]);
  return Object.fromEntries(needed);
}

function choose(path) {
  current = path;
  const operation = description.paths[path].post || description.paths[path].get;
  const schema = operation.requestBody?.content["application/json"].schema;
  const view = VIEWS[path];
  $("name").textContent = view?.name || path;
  $("summary").textContent = operation.summary;
  $("request").hidden = !schema;
  $("request").open = Boolean(schema && !view?.fields);
  $("fields").replaceChildren(...(view?.fields || []).map(field));
  setBody(schema ? view?.body ? view.body(firstValues(view)) : example(schema) : null);
  clear();
  draw();
}

function field([name, label, value]) {
  const isLong = name === "texts" || name === "pairs" || name === "context";
  const rows = Math.max(2, Math.min(8, value.split("\n").length + 1));
  const input = isLong ? element("textarea", {name, rows}) : element("input", {name});
  input.value = withMask(value);
  return element("label", {}, withMask(label), input);
}

function setBody(body) {
  $("body").value = body === null ? "" : JSON.stringify(body, null, 1);
  showCommand();
}

function showCommand() {
  const body = $("body").value.replace(/\n\s*/g, " ").replaceAll("'", "'\\''");
  $("command").textContent = `curl ${location.origin}${pathOf(current)} ` +
    `-H 'content-type: application/json' -d '${body}'`;
}

function clear() {
  $("results").replaceChildren();
  $("status").textContent = $("status").className = "";
  $("raw").hidden = true;
}

function draw() {
  const can = Object.keys(description.paths).filter(path => description.paths[path].get ? path === "/info"
    : !routes.length || routes.includes(path));
  const place = path => VIEWS[path]?.name ? Object.keys(VIEWS).indexOf(path) : MOST;
  can.sort((a, b) => place(a) - place(b));
  $("routes").replaceChildren(...can.map(path => {
    const name = VIEWS[path]?.name;
    const button = element("button", {type: "button", "aria-current": path === current},
      ...(name ? [name, element("small", {}, path)] : [path]));
    button.onclick = () => choose(path);
    return button;
  }), element("a", {href: "/docs"}, "All routes and fields"));
}

async function meet() {
  const chosen = $("model").value;
  const answer = await fetch(chosen ? `/${encodeURIComponent(chosen)}/info` : "/info", {headers: headers()});
  if (!answer.ok) {
    $("about").textContent = "Type the API key to see what the model does.";
    return;
  }
  $("main").hidden = false;
  const info = await answer.json();
  routes = info.routes;
  givesNumber = "reranker" in info.model_type;
  maskToken = info.model_type.masked_lm?.mask_token ?? "[MASK]";
  const kind = Object.keys(info.model_type)[0].replace("_lm", "_language_model").replaceAll("_", " ");
  $("about").textContent = `${info.model_id}: ${kind}, computed in ${info.model_dtype}, ` +
    `texts of up to ${count(info.max_input_length, "token")}`;
  if (!$("model").options.length)
    $("model").replaceChildren(...info.models.map(name => new Option(name, name)));
  $("model-label").hidden = info.models.length < 2;
  const named = Object.keys(VIEWS).find(path => VIEWS[path].name && routes.includes(path));
  if (!current || !routes.includes(current)) choose(named || routes[0]); else choose(current);
}

async function show(text) {
  const view = VIEWS[current];
  if (!view?.show) return false;
  try {
    const parts = await view.show(JSON.parse($("body").value), JSON.parse(text), ask);
    $("results").replaceChildren(...parts);
    return true;
  } catch (error) {  // an answer of another form, which is shown as JSON
    return false;
  }
}

async function send(event) {
  event?.preventDefault();
  const began = performance.now();
  const computes = Boolean(description.paths[current].post);
  clear();
  $("send").disabled = true;
  $("status").textContent = "…";
  try {
    const answer = await fetch(pathOf(current), {method: computes ? "POST" : "GET",
      headers: headers(), body: computes ? $("body").value : undefined});
    const text = await answer.text();
    const tokens = Number(answer.headers.get("x-compute-tokens"));
    const milliseconds = Math.round(performance.now() - began);
    $("status").textContent = [answer.ok ? "" : `${answer.status}`, `${milliseconds} ms`,
      tokens ? count(tokens, "token") : ""].filter(Boolean).join(", ");
    $("status").className = answer.ok ? "" : "bad";
    let told = text;
    try { told = JSON.stringify(JSON.parse(text), null, 1).replace(/\n\s+(?=-?\d)/g, " "); } catch { }
    $("answer").textContent = told.length > LONGEST ? told.slice(0, LONGEST) + " …" : told;
    $("raw").hidden = false;
    if (answer.ok) $("raw").open = !(await show(text));
    else $("results").replaceChildren(element("p", {class: "bad"}, refusal(text)));
  } catch (error) {
    $("status").textContent = String(error);
    $("status").className = "bad";
  } finally {
    $("send").disabled = false;
  }
}

function refusal(text) {
  try {
    const {error, message} = JSON.parse(text);
    return error?.message || error || message || text;
  } catch { return text; }
}

async function begin() {
  $("form").onsubmit = send;
  $("fields").oninput = () => {
    const values = [...$("fields").querySelectorAll("[name]")].map(each => [each.name, each.value]);
    setBody(VIEWS[current].body(Object.fromEntries(values)));
  };
  $("body").oninput = showCommand;
  $("form").onkeydown = event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
  };
  $("copy").hidden = !navigator.clipboard;
  $("copy").onclick = () => navigator.clipboard.writeText($("command").textContent);
  $("model").onchange = $("key").onchange = meet;
  description = await (await fetch("/openapi.json")).json();
  $("key-label").hidden = !description.security;
  await meet();
}

begin();
