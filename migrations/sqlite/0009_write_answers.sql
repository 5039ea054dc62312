-- What a write of edition data was answered, so that a repeat of it is answered the same.

-- Only of calls whose answers hold no secret; null for the others.
alter table idempotency_key add column answer text;
-- The edition's version since then.
alter table idempotency_key add column version integer
    constraint idempotency_key_answered check ((answer is null) = (version is null));
