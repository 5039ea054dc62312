-- What failed of one subscription, which a replay and an operator ask for: neither what failed of all
-- others nor what it took is walked over. Rows here never change their state, so it costs nothing but those
-- that are in it.
create index delivery_not_succeeded_of_subscription on delivery (subscription_id, id)
    where state <> 'succeeded';
