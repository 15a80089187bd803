import { isIP, type Socket } from 'node:net'
import { connect, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js'
import { AssayError } from '#base/errors.ts'
import {
  exportKeyingMaterial,
  negotiatedGroup,
  offeredGroups,
  peerChain,
  secureContextOptions,
  type TlsIdentity,
  type TlsProfile,
  type TlsRequirements,
} from './tls.ts'

export interface TlsConnectorOptions {
  /** A host name or an IP address. */
  readonly host: string
  readonly port: number
  /** The name asked for in the handshake (SNI). Default: `host`, unless that is an address. */
  readonly serverName?: string
  /** What to show to the server. Without it the server sees an anonymous client. */
  readonly identity?: TlsIdentity
  /** Decides about the server's certificates (DER, the leaf first, nothing verified yet): throws to refuse. */
  readonly verifyServer: (chain: readonly Uint8Array[]) => void | Promise<void>
  /** Refuses servers that cannot do a hybrid key agreement. Default false. */
  readonly requirePqKem?: boolean
  /** Default `default`. */
  readonly profile?: TlsProfile
  /** Told of each connection the group its keys are from. Must not throw. */
  readonly onConnected?: (group: string) => void
  /** Once connected, never connect again: when the connection is lost, every call fails. Default false. */
  readonly pinned?: boolean
}

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>

/**
 * TLS for one channel of grpc-js, by our own rules: grpc-js alone cannot leave verification to us, hand out the
 * connection's keying material, or reach an IP address under Node 26.
 */
export class TlsConnector {
  readonly credentials: ChannelCredentials
  /** Why the last attempt failed; undefined since one has succeeded. */
  lastError: Error | undefined
  readonly #options: TlsConnectorOptions
  readonly #context: SecureContext
  readonly #requirements: TlsRequirements
  #socket: TLSSocket | undefined
  #used = false

  constructor(options: TlsConnectorOptions) {
    const { identity, requirePqKem = false, profile = 'default' } = options
    this.#options = options
    this.#requirements = { requirePqKem, profile }
    this.#context = createSecureContext(secureContextOptions({ identity, ...this.#requirements }))
    this.credentials = new OwnTlsCredentials((socket) => this.#secure(socket))
  }

  /** Keying material of the live connection; undefined when there is none. */
  exporter(label: string, length: number): Uint8Array | undefined {
    const socket = this.#socket
    if (socket === undefined || socket.destroyed) return undefined
    return exportKeyingMaterial(socket, label, length)
  }

  close(): void {
    this.#socket?.destroy()
  }

  async #secure(socket: Socket): Promise<TLSSocket> {
    try {
      this.#refuseSecond()
      const secured = await this.#handshake(socket)
      this.#options.onConnected?.(negotiatedGroup(secured))
      await this.#options.verifyServer(serverChain(secured))
      this.#refuseSecond()
      if (secured.destroyed) throw new AssayError('unavailable', 'the server closed the connection')
      this.#used = true
      this.#socket = secured
      this.lastError = undefined
      return secured
    } catch (error) {
      this.lastError = error instanceof Error ? error : new Error(String(error), { cause: error })
      socket.destroy()
      throw error
    }
  }

  /** Also when two attempts run at once, for a name with two addresses: the first to be verified is the one. */
  #refuseSecond(): void {
    if (this.#options.pinned === true && this.#used) {
      throw new AssayError('unavailable', 'the one connection these calls were bound to is lost', {
        reason: 'pinned-connection-lost',
      })
    }
  }

  #explain(error: Error): Error {
    if (!isHandshakeFailure(error)) return error
    const offered = offeredGroups(this.#requirements).join(', ')
    return new AssayError(
      'unavailable',
      `the server accepts nothing of what this end offers: key agreement by ${offered}; compare require_pq_kem and crypto_profile of both`,
      { reason: 'no-common-key-agreement', cause: error },
    )
  }

  #handshake(socket: Socket): Promise<TLSSocket> {
    const { host, serverName = isIP(host) === 0 ? host : '' } = this.#options
    return new Promise((resolve, reject) => {
      const secured = connect({
        socket,
        secureContext: this.#context,
        servername: serverName,
        ALPNProtocols: ['h2'],
        // OpenSSL's verdict is not asked for: `verifyServer` is, before a byte of ours is sent.
        rejectUnauthorized: false,
      })
      secured.once('secureConnect', () => resolve(secured))
      secured.on('error', (error) => reject(this.#explain(error)))
      secured.once('close', () =>
        reject(new Error('the server closed the connection in the handshake')),
      )
    })
  }
}

/** The server's refusal of everything that was offered. TLS has no more than this one word for it. */
const isHandshakeFailure = (error: Error): boolean =>
  'code' in error && error.code === 'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE'

function serverChain(socket: TLSSocket): readonly Uint8Array[] {
  if (socket.alpnProtocol !== 'h2') {
    throw new AssayError('unavailable', 'the server does not speak HTTP/2 (ALPN h2)')
  }
  const chain = peerChain(socket)
  if (chain.length === 0) throw new AssayError('unauthenticated', 'the server shows no certificate')
  return chain
}

class OwnTlsCredentials extends ChannelCredentials {
  readonly #secure: (socket: Socket) => Promise<TLSSocket>

  constructor(secure: (socket: Socket) => Promise<TLSSocket>) {
    super()
    this.#secure = secure
  }

  override compose(): ChannelCredentials {
    throw new TypeError('cannot compose: these credentials belong to one connection')
  }

  override _isSecure(): boolean {
    return true
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other
  }

  override _createSecureConnector(): SecureConnector {
    const callCredentials = CallCredentials.createEmpty()
    return {
      connect: async (socket) => ({ socket: await this.#secure(socket), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials,
      destroy: () => {},
    }
  }
}
