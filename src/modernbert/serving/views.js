// The forms of the server's page, and its answers as people look at them.
"use strict";
const MOST = 24;  // bars, rows or columns that are shown
let givesNumber = false;  // whether the model gives one number, which is no probability
let maskToken = "[MASK]";  // as the model's tokenizer writes it

// ---- Parts of a page -----------------------------------------------------------------------

function element(tag, attributes, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean);
const list = value => Array.isArray(value) ? value : [value];
const percent = share => `${(100 * share).toFixed(1)}%`;
const shortened = text => text.length > 60 ? text.slice(0, 60) + "…" : text;
const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
const quiet = text => element("p", {class: "quiet"}, text);

// How scores are shown: probabilities as percentages; others, such as cosines, as they are, with
// bars relative to the greatest where it is above 1.
function scale(scores, areCosines = false) {
  const within = scores.every(score => score >= 0 && score <= 1);
  const greatest = within ? 1 : Math.max(...scores.map(Math.abs)) || 1;
  return {
    share: score => score / greatest,
    say: score => within && !areCosines ? percent(score) : score.toFixed(3),
  };
}

function bar(share) {
  const inner = element("span");
  inner.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("i", {"aria-hidden": "true"}, inner);
}

// Names with bars, the given order kept; [[name, score], ...].
function bars(rows, areNumbers = false) {
  const {share, say} = scale(rows.map(row => row[1]), areNumbers);
  const items = rows.slice(0, MOST).map(([name, score, isChosen], place) => {
    const best = isChosen ?? place === 0;
    return element("li", best ? {class: "best"} : {}, element("b", {}, name, isChosen ? " ✓" : ""),
      bar(share(score)), element("em", {}, say(score)));
  });
  const shown = element("ul", {class: "bars"}, ...items);
  return rows.length > MOST ? [shown, quiet(`and ${rows.length - MOST} more`)] : [shown];
}

function heat(rows, columns, values) {
  const all = values.flat();
  const others = all.filter(value => value < 0.9999);
  const low = Math.min(...others, 1), high = Math.max(...others, low + 1e-6);
  const header = element("tr", {}, element("td"), ...columns.map(name =>
    element("th", {scope: "col", title: name}, shortened(name))));
  const body = values.map((row, place) => element("tr", {},
    element("th", {scope: "row", title: rows[place]}, shortened(rows[place])),
    ...row.map(value => {
      const cell = element("td", {}, value.toFixed(2));
      cell.style.setProperty("--share", Math.min(1, (value - low) / (high - low)).toFixed(3));
      return cell;
    })));
  const table = element("table", {class: "heat"}, element("thead", {}, header),
    element("tbody", {}, ...body));
  return element("div", {class: "scroll", tabindex: "0", role: "group",
    "aria-label": "Similarities"}, table);
}

// A text with stretches marked; the server counts characters, and strings here count in halves.
function marked(text, spans) {
  const characters = Array.from(text), parts = [];
  let place = 0;
  for (const {start, end, label, kind, title} of spans) {
    if (start < place) continue;
    const inside = characters.slice(start, end).join("");
    const mark = element("mark", {class: `k${kind}`, title: title || ""}, inside);
    if (label) mark.append(element("small", {}, label));
    parts.push(characters.slice(place, start).join(""), mark);
    place = end;
  }
  return element("p", {class: "text"}, ...parts, characters.slice(place).join(""));
}

// ---- Answers -------------------------------------------------------------------------------

function cosines(left, right) {
  const length = vector => Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)) || 1;
  const unit = vectors => vectors.map(vector => vector.map(value => value / length(vector)));
  const [a, b] = [unit(left), unit(right)];
  return a.map(x => b.map(y => x.reduce((sum, value, place) => sum + value * y[place], 0)));
}

function showVectors(texts, vectors) {
  const said = quiet(`${count(vectors.length, "vector")} of ${count(vectors[0].length, "number")}`);
  if (vectors.length === 1)
    return [said, element("pre", {}, vectors[0].map(value => value.toFixed(4)).join("  "))];
  const few = vectors.slice(0, MOST);
  const names = few.map((_, place) => `${place + 1}`);
  const rows = names.map((name, place) => `${name}  ${texts[place] ?? ""}`);
  return [said, element("h3", {}, "Cosine similarities"), heat(rows, names, cosines(few, few))];
}

async function showTokenVectors(body, answers, ask) {
  const texts = list(body.inputs);
  const tokens = await ask("/tokenize", {inputs: texts});
  const side = number => {
    const vectors = answers[number].slice(0, MOST);
    const names = (tokens[number] || []).map(token => token.text);
    const isSame = names.length === answers[number].length;
    return [vectors, vectors.map((_, place) => isSame ? names[place] : `${place + 1}`)];
  };
  const [down, rows] = side(0), [across, columns] = side(answers.length > 1 ? 1 : 0);
  return [
    quiet(answers.map(vectors => `${count(vectors.length, "vector")}`).join(", ") +
      `, of ${count(answers[0][0].length, "number")}`),
    element("h3", {}, answers.length > 1 ? "Tokens of the first text by those of the second"
      : "Tokens by tokens"),
    heat(rows, columns, cosines(down, across)),
  ];
}

async function showSparse(body, answers, ask) {
  const texts = list(body.inputs), parts = [];
  for (const [place, values] of answers.entries()) {
    const best = [...values].sort((a, b) => b.value - a.value).slice(0, MOST);
    const words = best.length ? await ask("/decode",
      {ids: best.map(each => [each.index]), skip_special_tokens: false}) : [];
    const greatest = Math.max(...best.map(each => each.value), 1e-9);
    const rows = best.map((each, number) => element("li", number ? {} : {class: "best"},
      element("b", {}, words[number]), bar(each.value / greatest),
      element("em", {}, each.value.toFixed(3))));
    parts.push(element("h3", {}, String(texts[place])),
      quiet(`${count(values.length, "word")} with a weight` +
        (values.length > MOST ? `, the heaviest ${MOST}` : "")),
      element("ul", {class: "bars"}, ...rows));
  }
  return parts;
}

function showLabels(body, answer) {
  const texts = Array.isArray(answer[0]) ? list(body.inputs) : [body.inputs];
  return list(Array.isArray(answer[0]) ? answer : [answer]).flatMap((labels, place) => [
    element("h3", {}, list(texts[place]).join("  |  ")),
    ...bars(labels.map(each => [each.label, each.score, each.chosen]), body.raw_scores),
    ...(labels.every(each => each.chosen === false) ? [quiet("No label reaches its threshold.")] : []),
  ]);
}

function showRanks(query, ranks, areCosines) {
  const {share, say} = scale(ranks.map(each => each.score), areCosines);
  const items = ranks.map(({text, score}) => element("li", {}, text,
    element("div", {class: "bars"}, bar(share(score)), element("em", {}, say(score)))));
  return [element("h3", {}, query), element("ol", {class: "ranks"}, ...items)];
}

function showEntities(body, answer) {
  const isList = Array.isArray(body.inputs), kinds = [];
  const answers = isList ? answer : [answer];
  return list(body.inputs).flatMap((text, place) => {
    const words = Array.isArray(text);
    const said = words ? text.join(" ") : text;
    const begins = words ? text.map((_, at) => Array.from(text.slice(0, at).join(" ")).length + (at > 0)) : [];
    const spans = answers[place].map(entity => {
      if (!kinds.includes(entity.entity_group)) kinds.push(entity.entity_group);
      const start = words ? begins[entity.start] : entity.start;
      return {start, end: words ? start + Array.from(entity.word).length : entity.end,
        label: entity.entity_group, kind: kinds.indexOf(entity.entity_group) % 6,
        title: percent(entity.score)};
    });
    const rows = answers[place].map(each => [`${each.word} (${each.entity_group})`, each.score, false]);
    return [marked(said, spans), ...(rows.length ? bars(rows) : [quiet("No entities.")])];
  });
}

function showFound(body, answer) {
  return list(body.inputs).flatMap((asked, place) => {
    const {answer: text, score, start, end} = list(answer)[place];
    const spans = text ? [{start, end, kind: 0}] : [];
    return [element("h3", {}, asked.question),
      ...bars([[text || "No answer in this text", score]]), marked(asked.context, spans)];
  });
}

function showFilled(body, answer) {
  const answers = Array.isArray(body.inputs) ? answer : [answer];
  return list(body.inputs).flatMap((text, place) => {
    const masks = Array.isArray(answers[place][0]) ? answers[place] : [answers[place]];
    const pieces = text.split(maskToken).map(piece => Array.from(piece));
    let filled = [...pieces[0]];
    const spans = masks.map((mask, number) => {
      const token = Array.from(mask[0].token_str.trim() || mask[0].token_str);
      const start = filled.length;
      filled = [...filled, ...token, ...(pieces[number + 1] || [])];
      return {start, end: start + token.length, kind: number % 6};
    });
    return [marked(filled.join(""), spans), ...masks.flatMap((mask, number) => [
      ...(masks.length > 1 ? [element("h3", {}, `${maskToken} ${number + 1}`)] : []),
      ...bars(mask.map(each => [each.token_str.trim() || JSON.stringify(each.token_str), each.score])),
    ])];
  });
}

function showTokens(body, answer) {
  return answer.flatMap((tokens, place) => [
    element("h3", {}, `${list(body.inputs)[place]}: ${count(tokens.length, "token")}`),
    element("ul", {class: "tokens"}, ...tokens.map(token =>
      element("li", token.special ? {class: "special"} : {}, token.text,
        element("small", {}, `${token.id}`)))),
  ]);
}

// ---- Routes --------------------------------------------------------------------------------

const TEXTS = "Texts, each in a line";
const SENTENCES = "What is deep learning?\nHow do machines learn?\nCheese is made of milk.";
const QUERY = ["query", "Question", "How is cheese made?"];
const DOCUMENTS = ["texts", "Texts to rank, each in a line",
  "Deep learning uses many layers.\nCheese is made of milk.\nLondon is a city."];

// Of each route what people call it, the fields of its form (name, label, first value), the body
// that follows from them, and what shows an answer. Other routes are asked in JSON.
const VIEWS = {
  "/predict": {
    name: "Label texts",
    fields: [["texts", TEXTS, "I liked it very much.\nIt was far too long."],
      ["pairs", "For a model of pairs: the second text of each, in the same order", ""]],
    body: ({texts, pairs}) => ({inputs: lines(texts).map((text, place) =>
      [text, ...lines(pairs).slice(place, place + 1)]),
      ...(givesNumber && {raw_scores: true})}),
    show: showLabels,
  },
  "/tag": {
    name: "Find entities",
    fields: [["texts", TEXTS, "Ada Lovelace was born in London.\nShe wrote to Charles Babbage."]],
    body: ({texts}) => ({inputs: lines(texts)}),
    show: showEntities,
  },
  "/answer": {
    name: "Answer questions",
    fields: [["question", "Question", "Where was Ada Lovelace born?"],
      ["context", "Text", "Ada Lovelace, who wrote the first program, was born in London in 1815."]],
    body: ({question, context}) => ({inputs: {question, context}}),
    show: showFound,
  },
  "/fill-mask": {
    name: "Fill masks",
    fields: [["texts", "Texts with [MASK], each in a line", "The [MASK] was closed, so they went home."]],
    body: ({texts}) => ({inputs: lines(texts), parameters: {top_k: 8}}),
    show: showFilled,
  },
  "/embed": {
    name: "Embed texts",
    fields: [["texts", TEXTS, SENTENCES]],
    body: ({texts}) => ({inputs: lines(texts)}),
    show: (body, answer) => showVectors(list(body.inputs), answer),
  },
  "/similarity": {
    name: "Compare texts",
    fields: [["query", "Text", "What is deep learning?"],
      ["texts", "Texts to compare it with, each in a line", "How do machines learn?\nCheese is made of milk."]],
    body: ({query, texts}) => ({inputs: {source_sentence: query, sentences: lines(texts)}}),
    show: ({inputs}, answer) => showRanks(inputs.source_sentence, inputs.sentences
      .map((text, place) => ({text, score: answer[place]})).sort((a, b) => b.score - a.score), true),
  },
  "/rerank": {
    name: "Rank texts",
    fields: [QUERY, DOCUMENTS],
    body: ({query, texts}) => ({query, texts: lines(texts)}),
    show: (body, answer) => showRanks(body.query, answer.map(({index, score}) =>
      ({text: body.texts[index], score}))),
  },
  "/embed_sparse": {
    name: "Weigh words",
    fields: [["texts", TEXTS, "Cheese is made of milk."]],
    body: ({texts}) => ({inputs: lines(texts)}),
    show: showSparse,
  },
  "/embed_all": {
    name: "Embed tokens",
    fields: [["texts", "Texts, each in a line; the tokens of the first two are compared",
      "How is cheese made?\nCheese is made of milk."]],
    body: ({texts}) => ({inputs: lines(texts)}),
    show: showTokenVectors,
  },
  "/tokenize": {
    name: "Split into tokens",
    fields: [["texts", TEXTS, "Tokenization splits words."]],
    body: ({texts}) => ({inputs: lines(texts)}),
    show: showTokens,
  },
  "/v1/embeddings": {
    show: (body, answer) => showVectors(list(body.input), answer.data.map(each => each.embedding)),
  },
  "/v1/rerank": {show: showRankedDocuments},
  "/v2/rerank": {show: showRankedDocuments},
};

function showRankedDocuments(body, {results}) {
  return showRanks(body.query, results.map(({index, relevance_score: score}) => {
    const given = body.documents[index];
    return {text: given.text ?? given, score};
  }));
}

const withMask = text => text.replaceAll("[MASK]", maskToken);
const firstValues = view =>
  Object.fromEntries(view.fields.map(([name, , value]) => [name, withMask(value)]));
