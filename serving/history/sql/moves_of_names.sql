-- What moved the meaning of some names, in order: an activation with its version, an experiment with its
-- arms as it started or as its weights changed, and its end with those that it had last. Of one moment an
-- end comes first, since a winner is activated with it. Times are nanoseconds UTC; a change that waited
-- for another one began before it and came after it, so the times of a kind never go back.
SELECT name, kind, (extract(epoch FROM at) * 1000000)::bigint * 1000, what
FROM (
    SELECT
        name, 'activation' AS kind, max(at) OVER (PARTITION BY name ORDER BY id) AS at,
        to_jsonb(version) AS what, 1 AS rank, id
    FROM tickwell.activations WHERE name = ANY (%(names)s::text[])
    UNION ALL
    SELECT
        subject, 'experiment', max(at) OVER (PARTITION BY subject ORDER BY id), after, 2, id
    FROM tickwell.audit
    WHERE subject = ANY (%(names)s::text[]) AND action IN ('start experiment', 'change weights')
    UNION ALL
    SELECT definition ->> 'feature', 'end', stopped_at, definition, 0, 0
    FROM tickwell.experiments
    WHERE definition ->> 'feature' = ANY (%(names)s::text[]) AND stopped_at IS NOT NULL
) AS moves
ORDER BY name, at, rank, id
