import { AssayError } from '#base/errors.ts'
import { type AuthorityContext, publishedAuthority } from './authority-context.ts'

/**
 * Marks an old authority in the bundle: it is still trusted, and everything that chains to it is replaced.
 *
 * @throws AssayError `invalid-argument` unless it is an old authority of this server; `failed-precondition`
 * when it is tainted already.
 */
export async function taintAuthority(
  context: AuthorityContext,
  authorityId: string,
): Promise<void> {
  const { kind, bundle } = context
  const refuse = refusal(context, `taint ${authorityId}`)
  checkNotInUse(context, { authorityId, refuse })
  if (!isOld(context, authorityId)) {
    throw refuse('invalid-argument', 'it is no old authority of this server')
  }
  const published = publishedAuthority(context, authorityId)
  if (published === undefined) throw refuse('failed-precondition', 'it is not in the bundle')
  if (published.tainted) throw refuse('failed-precondition', 'it is tainted already')
  await bundle.update((present) => kind.withTaint(present, authorityId))
  context.tell('tainted', authorityId)
}

/**
 * Takes a tainted authority out of the bundle: an old one of this server, or, for JWT, any in the bundle that
 * this server neither signs with nor is about to.
 *
 * @throws AssayError `invalid-argument` for another; `failed-precondition` when it is not tainted.
 */
export async function revokeAuthority(
  context: AuthorityContext,
  authorityId: string,
): Promise<void> {
  const { kind, bundle } = context
  const refuse = refusal(context, `revoke ${authorityId}`)
  checkNotInUse(context, { authorityId, refuse })
  const published = publishedAuthority(context, authorityId)
  const allowed = isOld(context, authorityId) || (kind.name === 'jwt' && published !== undefined)
  if (!allowed) throw refuse('invalid-argument', 'it is no old authority of this server')
  if (published?.tainted !== true) throw refuse('failed-precondition', 'it must be tainted first')
  await bundle.update((present) =>
    kind.without(present, (authority) => authority.authorityId === authorityId),
  )
  context.tell('revoked', authorityId)
}

type Refuse = (code: 'invalid-argument' | 'failed-precondition', why: string) => AssayError

function refusal({ kind }: AuthorityContext, action: string): Refuse {
  return (code, why) =>
    new AssayError(code, `cannot ${action} (${kind.title}): ${why}`, {
      reason: 'authority-state',
    })
}

function checkNotInUse(
  { records }: AuthorityContext,
  { authorityId, refuse }: { authorityId: string; refuse: Refuse },
): void {
  if (authorityId === '') throw refuse('invalid-argument', 'no authority id is given')
  for (const record of [records.active, records.prepared]) {
    if (record?.issued.authorityId === authorityId) {
      throw refuse('invalid-argument', `it is ${record.state}; activate another one first`)
    }
  }
}

const isOld = ({ records }: AuthorityContext, authorityId: string): boolean =>
  records.old.some(({ issued }) => issued.authorityId === authorityId)
