-- What failed of one subscription, which a replay and an operator ask for: neither what failed of all
-- others nor what it took is walked over. Rows here never change their state, so it costs nothing but those
-- that are in it. The words differ from those of `delivery_not_succeeded`, and so must a statement's: the
-- planner would take that one, and walk over all that failed in the workspace, since it cannot know that
-- few of them are of the subscription.
create index delivery_not_succeeded_of_subscription on delivery (subscription_id, id)
    where (state = 'succeeded') is not true;
