import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { AuthorityState as StateMessage } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { AuthorityState } from '../authority/authority-state.ts'
import { upstreamId } from '../authority/upstream-taint.ts'
import { notesOf } from './call-notes.ts'
import { unimplemented } from './unimplemented.ts'

type Kind = AuthorityState['kind']
type Chosen = { readonly authorityId: string }
type ChosenUpstream = { readonly subjectKeyId: string }

/** `spire.api.server.localauthority.v1.LocalAuthority`: operators rotate the authorities by hand. */
export function newLocalAuthorityService(
  authorities: Pick<
    AuthorityManager,
    'states' | 'prepare' | 'activate' | 'taint' | 'revoke' | 'taintUpstream' | 'revokeUpstream'
  >,
) {
  const noWit = unimplemented('WIT-SVIDs are not supported')

  return {
    getX509AuthorityState: async () => stateOf('x509'),
    prepareX509Authority: async (_request: object, context: CallContext) => {
      const prepared = await authorities.prepare('x509')
      notesOf(context).subject = prepared.authorityId
      return { preparedAuthority: stateMessage(prepared) }
    },
    activateX509Authority: async ({ authorityId }: Chosen, context: CallContext) => {
      note(context, authorityId)
      return { activatedAuthority: stateMessage(await authorities.activate('x509', authorityId)) }
    },
    taintX509Authority: async (chosen: Chosen, context: CallContext) => {
      note(context, chosen.authorityId)
      return { taintedAuthority: await apply('taint', 'x509', chosen) }
    },
    revokeX509Authority: async (chosen: Chosen, context: CallContext) => {
      note(context, chosen.authorityId)
      return { revokedAuthority: await apply('revoke', 'x509', chosen) }
    },
    async taintX509UpstreamAuthority({ subjectKeyId }: ChosenUpstream, context: CallContext) {
      note(context, subjectKeyId)
      await authorities.taintUpstream(subjectKeyId)
      return { upstreamAuthoritySubjectKeyId: subjectKeyId }
    },
    async revokeX509UpstreamAuthority({ subjectKeyId }: ChosenUpstream, context: CallContext) {
      note(context, subjectKeyId)
      await authorities.revokeUpstream(subjectKeyId)
      return { upstreamAuthoritySubjectKeyId: subjectKeyId }
    },

    getJWTAuthorityState: async () => stateOf('jwt'),
    prepareJWTAuthority: async (_request: object, context: CallContext) => {
      const prepared = await authorities.prepare('jwt')
      notesOf(context).subject = prepared.authorityId
      return { preparedAuthority: stateMessage(prepared) }
    },
    activateJWTAuthority: async ({ authorityId }: Chosen, context: CallContext) => {
      note(context, authorityId)
      return { activatedAuthority: stateMessage(await authorities.activate('jwt', authorityId)) }
    },
    taintJWTAuthority: async (chosen: Chosen, context: CallContext) => {
      note(context, chosen.authorityId)
      return { taintedAuthority: await apply('taint', 'jwt', chosen) }
    },
    revokeJWTAuthority: async (chosen: Chosen, context: CallContext) => {
      note(context, chosen.authorityId)
      return { revokedAuthority: await apply('revoke', 'jwt', chosen) }
    },

    getWITAuthorityState: noWit,
    prepareWITAuthority: noWit,
    activateWITAuthority: noWit,
    taintWITAuthority: noWit,
    revokeWITAuthority: noWit,
  }

  function stateOf(kind: Kind) {
    const states = authorities.states(kind)
    const active = states.find(({ state }) => state === 'active')
    if (active === undefined) {
      throw new AssayError('unavailable', 'server is initializing', {
        reason: 'no-active-authority',
      })
    }
    return {
      active: stateMessage(active),
      prepared: optional(states.find(({ state }) => state === 'prepared')),
      old: optional(lastReplaced(states)),
    }
  }

  /** Answers with what the authority was: after a revocation there is nothing left of it. */
  async function apply(action: 'taint' | 'revoke', kind: Kind, { authorityId }: Chosen) {
    const before = authorities.states(kind).find((state) => state.authorityId === authorityId)
    await authorities[action](kind, authorityId)
    return before === undefined
      ? { authorityId, expiresAt: 0, upstreamAuthoritySubjectKeyId: '' }
      : stateMessage(before)
  }
}

/** What the call is about, however it ends. A caller chooses the text. */
function note(context: CallContext, authorityId: string): void {
  notesOf(context).subject = authorityId.slice(0, 255)
}

/** What an operator has replaced last; one that was prepared and given up has never signed. */
const lastReplaced = (states: readonly AuthorityState[]): AuthorityState | undefined =>
  states.findLast(({ state, signedUntilSeconds }) => state === 'old' && signedUntilSeconds > 0) ??
  states.findLast(({ state }) => state === 'old')

const stateMessage = (state: AuthorityState): StateMessage => ({
  authorityId: state.authorityId,
  expiresAt: state.expiresAtSeconds,
  upstreamAuthoritySubjectKeyId: upstreamId(state),
})

const optional = (state: AuthorityState | undefined): StateMessage | undefined =>
  state && stateMessage(state)
