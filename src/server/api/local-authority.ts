import { AssayError } from '#base/errors.ts'
import type { AuthorityState as StateMessage } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { AuthorityState } from '../authority/authority-state.ts'
import { upstreamId } from '../authority/upstream-taint.ts'
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
    prepareX509Authority: async () => ({
      preparedAuthority: stateMessage(await authorities.prepare('x509')),
    }),
    activateX509Authority: async ({ authorityId }: Chosen) => ({
      activatedAuthority: stateMessage(await authorities.activate('x509', authorityId)),
    }),
    taintX509Authority: async (chosen: Chosen) => ({
      taintedAuthority: await apply('taint', 'x509', chosen),
    }),
    revokeX509Authority: async (chosen: Chosen) => ({
      revokedAuthority: await apply('revoke', 'x509', chosen),
    }),
    async taintX509UpstreamAuthority({ subjectKeyId }: ChosenUpstream) {
      await authorities.taintUpstream(subjectKeyId)
      return { upstreamAuthoritySubjectKeyId: subjectKeyId }
    },
    async revokeX509UpstreamAuthority({ subjectKeyId }: ChosenUpstream) {
      await authorities.revokeUpstream(subjectKeyId)
      return { upstreamAuthoritySubjectKeyId: subjectKeyId }
    },

    getJWTAuthorityState: async () => stateOf('jwt'),
    prepareJWTAuthority: async () => ({
      preparedAuthority: stateMessage(await authorities.prepare('jwt')),
    }),
    activateJWTAuthority: async ({ authorityId }: Chosen) => ({
      activatedAuthority: stateMessage(await authorities.activate('jwt', authorityId)),
    }),
    taintJWTAuthority: async (chosen: Chosen) => ({
      taintedAuthority: await apply('taint', 'jwt', chosen),
    }),
    revokeJWTAuthority: async (chosen: Chosen) => ({
      revokedAuthority: await apply('revoke', 'jwt', chosen),
    }),

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
    // Of several old ones the last is what an operator has just replaced.
    return {
      active: stateMessage(active),
      prepared: optional(states.find(({ state }) => state === 'prepared')),
      old: optional(states.findLast(({ state }) => state === 'old')),
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

const stateMessage = (state: AuthorityState): StateMessage => ({
  authorityId: state.authorityId,
  expiresAt: state.expiresAtSeconds,
  upstreamAuthoritySubjectKeyId: upstreamId(state),
})

const optional = (state: AuthorityState | undefined): StateMessage | undefined =>
  state && stateMessage(state)
