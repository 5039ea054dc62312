-- What a write of edition data was answered, so that a repeat of it is answered the same.

alter table idempotency_key
    -- Only of calls whose answers hold no secret; null for the others.
    add column answer text,
    -- The edition's version since then.
    add column version bigint,
    add constraint idempotency_key_answered check ((answer is null) = (version is null));
