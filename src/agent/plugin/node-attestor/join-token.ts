import { readFile } from 'node:fs/promises'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Attestation, NodeAttestor, NodeAttestorStatus } from './node-attestor.ts'

/** Where the token is. A file is read at each attempt, so that an operator can put a new one there. */
export type JoinTokenSource =
  | { readonly token: string; readonly tokenFile?: undefined }
  | { readonly tokenFile: string; readonly token?: undefined }

/** Proves the node by a token that works once (`join_token`). There is no challenge. */
export class JoinTokenNodeAttestor implements NodeAttestor {
  readonly type = 'join_token'
  readonly #source: JoinTokenSource
  #problem = ''

  constructor(source: JoinTokenSource) {
    this.#source = source
  }

  async attest(): Promise<Attestation> {
    const payload = utf8Bytes(await this.#readToken())
    return {
      payload,
      respond: () => Promise.reject(noChallenge()),
      async [Symbol.asyncDispose]() {},
    }
  }

  status(): NodeAttestorStatus {
    return this.#problem === ''
      ? { state: 'ok', detail: '' }
      : { state: 'failed', detail: this.#problem }
  }

  async #readToken(): Promise<string> {
    const { token, tokenFile } = this.#source
    try {
      const text = (token ?? (await readFile(tokenFile, 'utf8'))).trim()
      if (text === '') throw new SyntaxError('it is empty')
      this.#problem = ''
      return text
    } catch (error) {
      this.#problem = `cannot read the join token ${tokenFile ?? ''}: ${messageOf(error)}`
      throw noToken(this.#problem, error)
    }
  }
}

function noToken(message: string, cause: unknown): AssayError {
  return new AssayError('failed-precondition', message, { reason: 'join-token-missing', cause })
}

function noChallenge(): AssayError {
  return new AssayError('internal', 'the server sent a challenge, which a join token cannot answer')
}
