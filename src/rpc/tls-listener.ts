import type { Server } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { createServer, type TLSSocket } from 'node:tls'
import { AssayError, messageOf } from '#base/errors.ts'
import type { PqState } from '#pq-crypto/alternative-chain.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import type { TlsPeer } from './call.ts'
import type { Listener, ListenerLimits, ListenerOptions } from './listener.ts'
import {
  exportKeyingMaterial,
  hasNoCommonGroup,
  negotiatedGroup,
  offeredGroups,
  peerChain,
  secureContextOptions,
  type TlsIdentity,
  type TlsProfile,
} from './tls.ts'

/** What a client's certificates have been found to say. */
export interface VerifiedClient {
  readonly spiffeId: SpiffeId
  /** Decimal. */
  readonly serialNumber: string
  /** Unix time. */
  readonly expiresAtSeconds: number
  /** What was found of its post-quantum signatures; undefined: they were not looked at. */
  readonly pq?: PqState
}

/** Where and how a TLS socket listens. */
export interface ListenTlsOptions extends ListenerLimits {
  /** An IP address, or a name that resolves to one of ours. */
  readonly address: string
  /** Zero: any that is free. */
  readonly port: number
  /** What the server shows; asked for at the start and at each {@link TlsListener.updateIdentity}. */
  readonly identity: () => TlsIdentity
  /**
   * Decides about a client that shows certificates (DER, the leaf first, nothing verified yet). What it throws
   * closes the connection. A client that shows none is let in without an ID.
   */
  readonly verifyClient: (chain: readonly Uint8Array[]) => VerifiedClient | Promise<VerifiedClient>
  /** Refuses clients that cannot do a hybrid key agreement. Default false. */
  readonly requirePqKem?: boolean
  /** Default `default`. */
  readonly profile?: TlsProfile
  /** Told of every handshake, for counting: the group its keys are from, or that it failed. Must not throw. */
  readonly onHandshake?: (outcome: TlsHandshake) => void
  /** Told of each client that was let in with a certificate. Must not throw. */
  readonly onAdmitted?: (client: VerifiedClient) => void
  /** Default 10 s. */
  readonly handshakeTimeoutMs?: number
}

/** How a handshake ended: with keys of `group`; without any, for want of a common group or otherwise. */
export type TlsHandshake =
  | { readonly group: string }
  | { readonly failure: 'no-common-group' | 'other' }

/** A TLS socket that is being served. */
export interface TlsListener {
  readonly address: string
  readonly port: number
  /** Shows what `identity` now returns to every new connection. Those that are open stay as they are. */
  updateIdentity(): void
  /** Asks `verifyClient` about every client again, and closes the connections of those it refuses by now. */
  verifyClientsAgain(): Promise<void>
}

/** Starts to listen. @throws AssayError as `RpcServer.listenTls`. */
export async function listenTls(
  options: ListenTlsOptions,
  listener: Listener,
  log: ListenerOptions['log'],
): Promise<TlsListener> {
  const { requirePqKem = false, profile = 'default', handshakeTimeoutMs = 10_000 } = options
  const { onHandshake = () => {} } = options
  const requirements = { requirePqKem, profile }
  const context = () => secureContextOptions({ identity: options.identity(), ...requirements })
  const server = createServer({
    ...context(),
    ALPNProtocols: ['h2'],
    handshakeTimeout: handshakeTimeoutMs,
    // Asked for and not demanded: an agent that attests has none yet. OpenSSL's own verdict is not used,
    // because it knows one set of roots and we one for each trust domain.
    requestCert: true,
    rejectUnauthorized: false,
    // Small frames both ways: Nagle's algorithm would hold each of them back by up to 40 ms.
    noDelay: true,
  })
  listener.attach(server)
  server.on('tlsClientError', (error, socket) => {
    const address = socket.remoteAddress
    const isGroup = hasNoCommonGroup(error)
    onHandshake({ failure: isGroup ? 'no-common-group' : 'other' })
    if (isGroup) {
      const wanted = offeredGroups(requirements).join(', ')
      log.info({ address, wanted }, 'a TLS client is refused: it offers no key agreement of ours')
    } else log.debug({ error, address }, 'a TLS handshake failed')
    socket.destroy()
  })
  const clients = new Clients(options, log)
  server.on('secureConnection', (socket) => {
    onHandshake({ group: negotiatedGroup(socket) })
    void admitClient(socket, clients, listener).catch((error: unknown) => {
      log.info({ error, address: socket.remoteAddress }, 'a TLS client is refused')
      socket.destroy()
    })
  })
  await listening(server, options)
  const bound = server.address()
  return {
    address: options.address,
    port: typeof bound === 'object' && bound !== null ? bound.port : options.port,
    updateIdentity: () => server.setSecureContext(context()),
    verifyClientsAgain: () => clients.verifyAgain(),
  }
}

/** The connections whose client showed certificates, and what it showed. */
class Clients {
  readonly #verify: ListenTlsOptions['verifyClient']
  readonly #onAdmitted: ListenTlsOptions['onAdmitted']
  readonly #log: ListenerOptions['log']
  readonly #chains = new Map<TLSSocket, readonly Uint8Array[]>()

  constructor(options: ListenTlsOptions, log: ListenerOptions['log']) {
    this.#verify = options.verifyClient
    this.#onAdmitted = options.onAdmitted
    this.#log = log
  }

  /** @throws what the verifier throws. */
  async verify(
    socket: TLSSocket,
    chain: readonly Uint8Array[],
  ): Promise<VerifiedClient | undefined> {
    if (chain.length === 0) return undefined
    // Before it is verified, so that a change while that goes on is not missed.
    this.#chains.set(socket, chain)
    socket.once('close', () => this.#chains.delete(socket))
    const verified = await this.#verify(chain)
    this.#onAdmitted?.(verified)
    return verified
  }

  async verifyAgain(): Promise<void> {
    let verified = 0
    for (const [socket, chain] of this.#chains) {
      // A signature is verified in some 0.1 ms, and there may be ten thousand clients.
      if (++verified % 100 === 0) await setImmediate()
      try {
        await this.#verify(chain)
      } catch (error) {
        this.#log.info({ error }, 'the connection of a TLS client is closed')
        socket.destroy()
      }
    }
  }
}

async function admitClient(socket: TLSSocket, clients: Clients, listener: Listener): Promise<void> {
  // Errors after the handshake come as a close too, and are told there.
  socket.on('error', () => {})
  if (socket.alpnProtocol !== 'h2') {
    throw new AssayError('unauthenticated', 'the client does not speak HTTP/2 (ALPN h2)')
  }
  const address = socket.remoteAddress ?? ''
  const chain = peerChain(socket)
  const verified = await clients.verify(socket, chain)
  const peer: TlsPeer = {
    kind: 'tls',
    address,
    spiffeId: verified?.spiffeId,
    certificate: verified && chain[0],
    serialNumber: verified?.serialNumber ?? '',
    expiresAtSeconds: verified?.expiresAtSeconds ?? 0,
    keyAgreement: negotiatedGroup(socket),
    pq: verified?.pq,
    exporter: (label, length) => exportKeyingMaterial(socket, label, length),
  }
  listener.admit(socket, peer)
}

function listening(server: Server, where: { address: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(notListening(where, error)))
    server.listen({ host: where.address, port: where.port, backlog: 4096 }, resolve)
  })
}

function notListening(where: { address: string; port: number }, cause: unknown): AssayError {
  const { address, port } = where
  return new AssayError(
    'failed-precondition',
    `cannot listen on ${address} port ${port}: ${messageOf(cause)}`,
    { cause },
  )
}
