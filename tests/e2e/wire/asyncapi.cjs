// Reads an AsyncAPI document with AsyncAPI's own parser, and prints what that makes of it as JSON:
//
//   node asyncapi.cjs PARSER DOCUMENT
//
// PARSER is @asyncapi/parser as it is published for browsers: one file with all that it needs. It looks for the name
// that browsers have for the global object.
globalThis.self = globalThis;

const fs = require("node:fs");
const path = require("node:path");

const [parser, document] = process.argv.slice(2);
const Parser = require(path.resolve(parser));

new Parser().parse(fs.readFileSync(document, "utf8")).then(({ document, diagnostics }) => {
    console.log(
        JSON.stringify({
            // 0 error, 1 warning, 2 information, 3 hint
            findings: diagnostics.map(({ severity, path, message }) => ({ severity, at: path.join("."), message })),
            channels: document ? document.channels().all().map((channel) => channel.address()) : [],
            operations: document ? document.operations().all().map((operation) => operation.id()) : [],
        }),
    );
});
