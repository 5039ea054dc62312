// A receiver that verifies, with the published library: npm install standardwebhooks
//
//     SECRET=whsec_… node receiver.mjs          listens on http://127.0.0.1:8080
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SECRET);
const seen = new Set(); // a real receiver keeps the ids of the last days in its database

createServer(async (request, response) => {
  // Verify the bytes as they came: parsed and written anew they would be other bytes.
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    event = webhook.verify(Buffer.concat(chunks), request.headers);
  } catch {
    response.writeHead(401).end();
    return;
  }
  // At least once: the same id may come again, and is then acknowledged and ignored.
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    seen.add(id);
    console.log(event.type, JSON.stringify(event.data));
  }
  response.writeHead(204).end();
}).listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? "127.0.0.1");
