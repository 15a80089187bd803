import { utf8Text } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AttestationExchange, AttestedNode, NodeAttestor } from './node-attestor.ts'

/** Where join tokens are; the datastore is one. */
export interface JoinTokens {
  /** Removes and returns a token, so that only one caller ever has it; undefined when there is none. */
  takeJoinToken(
    value: string,
  ): Promise<{ readonly value: string; readonly expiresAtSeconds: number } | undefined>
}

/** What the join token attestor works with. */
export interface JoinTokenDependencies {
  readonly trustDomain: TrustDomain
  readonly tokens: JoinTokens
  readonly clock: Clock
}

/** Longest token, in bytes, that is looked up: longer ones cannot be part of an agent ID. */
const maxTokenBytes = 1024

/**
 * A node proves that an operator gave it a one-time token, which is the payload; it becomes
 * `/spire/agent/join_token/<token>`. A token is gone once it has been shown, whether it had expired or not.
 */
export class JoinTokenAttestor implements NodeAttestor {
  readonly type = 'join_token'
  readonly #dependencies: JoinTokenDependencies

  constructor(dependencies: JoinTokenDependencies) {
    this.#dependencies = dependencies
  }

  async attest(exchange: AttestationExchange): Promise<AttestedNode> {
    const { trustDomain, tokens, clock } = this.#dependencies
    const value = readToken(exchange.payload)
    const token = await tokens.takeJoinToken(value)
    if (token === undefined) {
      throw new AssayError(
        'invalid-argument',
        'failed to attest: join token does not exist or has already been used',
        { reason: 'join-token-unknown' },
      )
    }
    if (token.expiresAtSeconds <= clock.now().epochMilliseconds / 1000) {
      throw new AssayError('invalid-argument', 'join token expired', {
        reason: 'join-token-expired',
      })
    }
    return {
      agentId: spiffeId(trustDomain, `/spire/agent/${this.type}/${value}`),
      selectors: [],
      canReattest: false,
    }
  }
}

/** A token that cannot stand in an agent ID was never made, so it is not looked up. */
function readToken(payload: Uint8Array): string {
  try {
    const value = payload.length <= maxTokenBytes ? utf8Text(payload) : ''
    if (/^[A-Za-z0-9._-]+$/.test(value) && value !== '.' && value !== '..') return value
  } catch {
    // Not UTF-8: not a token either.
  }
  throw new AssayError(
    'invalid-argument',
    'failed to attest: the payload is not a join token of letters, digits, ".", "-" and "_"',
    { reason: 'join-token-malformed' },
  )
}
