// What a program does with the types that openapi-typescript generates. Run: URL KEY POST POST…
import assert from "node:assert/strict";
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./redraft.js";

type Job = components["schemas"]["Job"];

async function editsAPost(client: Client<paths>, postId: string): Promise<void> {
  const params = { path: { postId } };
  const { data } = await client.PATCH("/v1/posts/{postId}", { params, body: { caption: "From a TypeScript client" } });
  assert(data && "caption" in data, "the edit was not applied in time");
  assert.equal(data.caption, "From a TypeScript client");
  const nowhere = { path: { postId: "post_none" } };
  const refused = await client.PATCH("/v1/posts/{postId}", { params: nowhere, body: { caption: "Nowhere" } });
  assert.equal(refused.error?.error.code, "not_found");
}

async function editsManyPosts(client: Client<paths>, postIds: string[]): Promise<void> {
  const edits = postIds.map((postId) => ({ postId, caption: "One of many" }));
  const { data } = await client.POST("/v1/edits", { body: { edits } });
  assert.deepEqual(data?.data.map((fate) => fate.status), postIds.map(() => "applied"));
}

async function movesPosts(client: Client<paths>, postIds: string[]): Promise<void> {
  const params = { header: { Prefer: "wait=20" } };
  const { data } = await client.POST("/v1/reschedules", { params, body: { filter: { postIds }, shift: "P1D" } });
  const job: Job | undefined = data;
  assert.deepEqual([job?.status, job?.applied], ["done", postIds.length]);
}

const [url, key, ...postIds] = process.argv.slice(2);
assert(url && key && postIds[0], "URL KEY POST POST…");
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });
await editsManyPosts(client, postIds);
await editsAPost(client, postIds[0]);
await movesPosts(client, postIds);
