-- One edit: the lock that takes the post as it is now, the change, the audit row, one commit.
\set number random(1, :posts)
BEGIN;
SELECT status, claim_kind, caption, revision FROM posts
WHERE id = 'post_' || lpad((:number)::text, 7, '0') AND deleted_at IS NULL FOR NO KEY UPDATE;
UPDATE posts SET caption = 'limit ' || gen_random_uuid()
    || ' A caption of a usual length, the kind that people write for a short video, with a #tag or #two',
    revision = revision + 1
WHERE id = 'post_' || lpad((:number)::text, 7, '0');
INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, finalized_at, revision, before, after)
SELECT 'edit_' || uuidv7(), id, workspace_id, jsonb_build_object('caption', caption), 'bench', 'applied',
    clock_timestamp(), revision, jsonb_build_object('caption', 'before'), jsonb_build_object('caption', caption)
FROM posts WHERE id = 'post_' || lpad((:number)::text, 7, '0');
COMMIT;
