import { AssayError } from '#base/errors.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { type AuthorityContext, publishedAuthority } from './authority-context.ts'
import type { IssuedAuthority } from './journal.ts'

/**
 * Marks the root above an old X.509 authority in the bundle: it is still trusted, and everything that chains to it is
 * replaced.
 *
 * @throws AssayError `failed-precondition` without an upstream authority; `invalid-argument` unless it is above an old
 * authority of this server, and above neither the active nor the prepared one; `internal` when it is not in the bundle
 * or tainted already. The codes are those of spire-server's local authority service.
 */
export async function taintUpstream(
  context: AuthorityContext,
  of: { readonly subjectKeyId: string; readonly isConfigured: boolean },
): Promise<void> {
  const { kind, bundle } = context
  const { subjectKeyId } = of
  const refuse = refusal(`taint ${subjectKeyId}`)
  checkAboveOld(context, { ...of, refuse })
  const published = publishedAuthority(context, subjectKeyId)
  if (published === undefined) throw refuse('internal', notInBundle(context, subjectKeyId))
  if (published.tainted) throw refuse('internal', 'it is tainted already')
  await bundle.update((present) => kind.withTaint(present, subjectKeyId))
  context.tell('tainted', subjectKeyId)
}

/**
 * Takes a tainted root above an old X.509 authority out of the bundle.
 *
 * @throws AssayError as {@link taintUpstream}, and `invalid-argument` when it is among `roots`, which are published
 * again; `internal` when it is not tainted.
 */
export async function revokeUpstream(
  context: AuthorityContext,
  of: {
    readonly subjectKeyId: string
    readonly isConfigured: boolean
    /** Those the upstream authority has now. */
    readonly roots: readonly Certificate[]
  },
): Promise<void> {
  const { kind, bundle } = context
  const { subjectKeyId, roots } = of
  const refuse = refusal(`revoke ${subjectKeyId}`)
  checkAboveOld(context, { ...of, refuse })
  if (roots.some((root) => root.subjectKeyId?.toHex() === subjectKeyId)) {
    throw refuse('invalid-argument', 'take it out of bundle_file_path first')
  }
  const published = publishedAuthority(context, subjectKeyId)
  if (published === undefined) throw refuse('internal', notInBundle(context, subjectKeyId))
  if (!published.tainted) throw refuse('internal', 'it must be tainted first')
  await bundle.update((present) =>
    kind.without(present, ({ authorityId }) => authorityId === subjectKeyId),
  )
  context.tell('revoked', subjectKeyId)
}

/** A bundle has roots: who names a CA below one is told which. */
function notInBundle({ kind, records }: AuthorityContext, subjectKeyId: string): string {
  const below = records.old.find(({ issued }) => upstreamId(issued) === subjectKeyId)
  return below === undefined
    ? 'it is not in the bundle'
    : `the bundle has the root above it, ${kind.publishedId(below.issued)}`
}

type Refuse = (
  code: 'failed-precondition' | 'invalid-argument' | 'internal',
  why: string,
) => AssayError

const refusal =
  (action: string): Refuse =>
  (code, why) =>
    new AssayError(code, `cannot ${action} (upstream authority): ${why}`, {
      reason: code === 'failed-precondition' ? 'no-upstream-authority' : 'authority-state',
    })

function checkAboveOld(
  { kind, records }: AuthorityContext,
  of: { readonly subjectKeyId: string; readonly isConfigured: boolean; readonly refuse: Refuse },
): void {
  const { subjectKeyId, isConfigured, refuse } = of
  const isAbove = ({ issued }: { readonly issued: IssuedAuthority }): boolean =>
    issued.upstream !== undefined &&
    (kind.publishedId(issued) === subjectKeyId || upstreamId(issued) === subjectKeyId)
  const isAboveOld = records.old.some(isAbove)
  if (!isConfigured && !isAboveOld) {
    throw refuse('failed-precondition', 'no upstream authority is configured')
  }
  if (subjectKeyId === '') throw refuse('invalid-argument', 'no subject key id is given')
  for (const record of [records.active, records.prepared]) {
    if (record !== undefined && isAbove(record)) {
      throw refuse('invalid-argument', `it is above the ${record.state} authority`)
    }
  }
  if (!isAboveOld) throw refuse('invalid-argument', 'it is above no old authority of this server')
}

/** Subject key identifier of the CA that certified an X.509 authority, lower-case hex. */
export function upstreamId(issued: Pick<IssuedAuthority, 'content' | 'upstream'>): string {
  if (issued.upstream === undefined) return ''
  return parseCertificate(issued.content).authorityKeyId?.toHex() ?? ''
}
