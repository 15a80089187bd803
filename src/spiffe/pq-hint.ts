/**
 * Whether an entry asks for post-quantum SVIDs beside the classical ones: its hint is `pq`, or `pq:` and a name, so that
 * several identities of one workload can ask for them and still have hints of their own (SPIFFE Workload API §5.2.1).
 */
export const isPqHint = (hint: string): boolean => hint === 'pq' || hint.startsWith('pq:')
