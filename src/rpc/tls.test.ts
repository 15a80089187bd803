import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  type AddressInfo,
  connect as connectSocket,
  createServer as createTcpServer,
} from 'node:net'
import { describe, it } from 'node:test'
import {
  connect as connectNodeTls,
  createServer as createNodeTls,
  type ConnectionOptions as NodeTlsOptions,
  type TLSSocket,
} from 'node:tls'
import { AssayError } from '#base/errors.ts'
import { silentLog } from '#base/log.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import { encodePem } from '#pki/pem.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import {
  type Issued,
  newAuthority,
  newIntermediate,
  newSvid,
  nowSeconds,
} from '../../test/support/certificates.ts'
import { clock, echo, newServer, random, until } from '../../test/support/rpc.ts'
import type { TlsPeer } from './call.ts'
import { type Connection, type ConnectTlsOptions, connectTls } from './client.ts'
import { HealthDefinition } from './gen/grpc/health/v1/health.ts'
import { AgentDefinition } from './gen/spire/api/server/agent/v1/agent.ts'
import { EntryDefinition } from './gen/spire/api/server/entry/v1/entry.ts'
import type { RpcServer } from './server.ts'
import { requestIdOf } from './status.ts'
import type { TlsIdentity } from './tls.ts'
import type { ListenTlsOptions, TlsHandshake, TlsListener, VerifiedClient } from './tls-listener.ts'

const authority = newAuthority('example.org')
const otherAuthority = newAuthority('example.org')

const identityOf = (svid: Issued, ...intermediates: Issued[]): TlsIdentity => ({
  key: svid.key.privateKey,
  certificates: [svid, ...intermediates].map(({ certificate }) => certificate),
})

const serverIdentity = identityOf(newSvid(authority, 'spiffe://example.org/spire/server'))
const agentSvid = newSvid(authority, 'spiffe://example.org/spire/agent/x', { serial: 2n ** 70n })

/** As the server and the agent of the product verify: a chain to `roots`, and one SPIFFE ID. */
function verifier(...roots: readonly Issued[]): (chain: readonly Uint8Array[]) => VerifiedClient {
  const anchors = roots.map(({ certificate }) => parseCertificate(certificate))
  return (chain) => {
    const [leaf, ...intermediates] = chain.map((der) => parseCertificate(der))
    if (leaf === undefined) throw new AssayError('unauthenticated', 'no certificate')
    verifyChain({ leaf, intermediates, roots: anchors, nowSeconds })
    const [uri, second] = leaf.uris
    if (uri === undefined || second !== undefined) {
      throw new AssayError('unauthenticated', 'not exactly one URI', { reason: 'uri-count' })
    }
    return {
      spiffeId: parseSpiffeId(uri),
      serialNumber: leaf.serialNumber,
      expiresAtSeconds: leaf.notAfterSeconds,
    }
  }
}

interface TlsServed extends AsyncDisposable {
  readonly server: RpcServer
  readonly listener: TlsListener
  readonly peers: TlsPeer[]
  connect(options?: Partial<ConnectTlsOptions>): Connection
}

async function serveTls(options: Partial<ListenTlsOptions> = {}): Promise<TlsServed> {
  const stack = new AsyncDisposableStack()
  const peers: TlsPeer[] = []
  const server = stack.use(newServer(silentLog))
  server.addService(AgentDefinition, echo)
  server.addService(HealthDefinition, {
    async check(_request, { peer }) {
      if (peer.kind === 'tls') peers.push(peer)
      return { status: 1 }
    },
    async *watch(_request, { signal }) {
      yield { status: 1 }
      await once(signal, 'abort')
      throw signal.reason
    },
  })
  const listener = await server.listenTls({
    address: '127.0.0.1',
    port: 0,
    identity: () => serverIdentity,
    verifyClient: verifier(authority),
    ...options,
  })
  const verify = verifier(authority)
  return {
    server,
    listener,
    peers,
    connect: (connectOptions) =>
      stack.use(
        connectTls({
          host: '127.0.0.1',
          port: listener.port,
          clock,
          verifyServer: (chain) => void verify(chain),
          ...connectOptions,
        }),
      ),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

const check = (connection: Connection): Promise<unknown> =>
  connection.client(HealthDefinition).check({})

/** A handshake with the server by Node's own client. */
async function handshake(port: number, options: NodeTlsOptions): Promise<TLSSocket> {
  const socket = connectNodeTls({
    host: '127.0.0.1',
    port,
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
    ...options,
  })
  socket.on('error', () => {})
  await new Promise<void>((resolve) => {
    socket.once('secureConnect', resolve)
    socket.once('close', () => resolve())
  })
  return socket
}

describe('RpcServer on TLS', () => {
  it('lets a client without certificate in, and says that it is nobody', async () => {
    await using served = await serveTls()
    await check(served.connect())
    const [peer] = served.peers
    assert.equal(peer?.spiffeId, undefined)
    assert.equal(peer?.certificate, undefined)
    assert.equal(peer?.serialNumber, '')
    assert.equal(peer?.expiresAtSeconds, 0)
    assert.equal(peer?.address, '127.0.0.1')
  })

  it('tells the verified ID, certificate, serial number and expiry of a client', async () => {
    await using served = await serveTls()
    await check(served.connect({ identity: identityOf(agentSvid) }))
    const [peer] = served.peers
    assert.equal(peer?.spiffeId, 'spiffe://example.org/spire/agent/x')
    assert.deepEqual(peer?.certificate, agentSvid.certificate)
    assert.equal(peer?.serialNumber, `${2n ** 70n}`)
    assert.equal(peer?.expiresAtSeconds, nowSeconds + 3600)
  })

  it('hands intermediates to the verifier, of the client and of the server', async () => {
    const intermediate = newIntermediate(authority, 'example.org')
    const server = newSvid(intermediate, 'spiffe://example.org/spire/server')
    const agent = newSvid(intermediate, 'spiffe://example.org/spire/agent/y')
    await using served = await serveTls({ identity: () => identityOf(server, intermediate) })
    await check(served.connect({ identity: identityOf(agent, intermediate) }))
    assert.equal(served.peers[0]?.spiffeId, 'spiffe://example.org/spire/agent/y')
  })

  it('hands over a chain that ends in its root, and what does not belong to it, as they were shown', async () => {
    const intermediate = newIntermediate(authority, 'example.org')
    const shown = identityOf(
      newSvid(intermediate, 'spiffe://example.org/spire/agent/y'),
      intermediate,
      authority,
      otherAuthority,
    )
    const chains: (readonly Uint8Array[])[] = []
    await using served = await serveTls({
      verifyClient(chain) {
        chains.push(chain)
        return verifier(authority)(chain)
      },
    })
    await check(served.connect({ identity: shown }))
    assert.deepEqual(chains, [shown.certificates])
  })

  it('closes the connections of clients that are verified again and refused, and of nobody else', async () => {
    const old = newSvid(otherAuthority, 'spiffe://example.org/spire/agent/old')
    let roots = [authority, otherAuthority]
    await using served = await serveTls({ verifyClient: (chain) => verifier(...roots)(chain) })
    const stays = served.connect({ identity: identityOf(agentSvid) })
    const anonymous = served.connect()
    await Promise.all([check(stays), check(anonymous)])
    const stream = served
      .connect({ identity: identityOf(old) })
      .client(HealthDefinition)
      .watch({})
      [Symbol.asyncIterator]()
    await stream.next()
    await served.listener.verifyClientsAgain()
    await check(stays)
    assert.equal(served.server.connections, 3)
    roots = [authority]
    await served.listener.verifyClientsAgain()
    await assert.rejects(stream.next(), { code: 'unavailable' })
    await until(() => served.server.connections === 2)
    await Promise.all([check(stays), check(anonymous)])
    assert.equal(served.server.connections, 2)
  })

  it('waits for a verifier that takes its time', async () => {
    await using served = await serveTls({
      async verifyClient(chain) {
        await clock.sleep(Temporal.Duration.from({ milliseconds: 20 }), AbortSignal.timeout(1000))
        return verifier(authority)(chain)
      },
    })
    await check(served.connect({ identity: identityOf(agentSvid) }))
    assert.equal(served.peers.length, 1)
  })

  for (const [what, svid] of [
    ['of an unknown authority', newSvid(otherAuthority, 'spiffe://example.org/spire/agent/x')],
    [
      'with two URIs',
      newSvid(authority, 'spiffe://example.org/a', {
        uris: ['spiffe://example.org/a', 'spiffe://example.org/b'],
      }),
    ],
    [
      'that has expired',
      newSvid(authority, 'spiffe://example.org/a', { notAfterSeconds: nowSeconds - 1 }),
    ],
  ] as const) {
    it(`refuses a client certificate ${what}`, async () => {
      await using served = await serveTls()
      assert.throws(() => verifier(authority)([svid.certificate]))
      await assert.rejects(check(served.connect({ identity: identityOf(svid) })), {
        code: 'unavailable',
      })
      assert.equal(served.peers.length, 0)
    })
  }

  it('agrees on X25519MLKEM768 and TLS 1.3', async () => {
    await using served = await serveTls()
    const socket = await handshake(served.listener.port, {})
    assert.equal((socket.getEphemeralKeyInfo() as { name?: string }).name, 'X25519MLKEM768')
    assert.equal(socket.getProtocol(), 'TLSv1.3')
    socket.destroy()
  })

  it('resumes no session', async () => {
    await using served = await serveTls()
    const first = connectNodeTls({
      host: '127.0.0.1',
      port: served.listener.port,
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
    })
    const [session] = await once(first.resume(), 'session')
    const second = await handshake(served.listener.port, { session })
    assert.equal(second.destroyed, false)
    assert.equal(second.isSessionReused(), false)
    first.destroy()
    second.destroy()
  })

  it('speaks X25519 with a client that knows no better, unless requirePqKem', async () => {
    await using lenient = await serveTls()
    const socket = await handshake(lenient.listener.port, { ecdhCurve: 'X25519' })
    assert.equal((socket.getEphemeralKeyInfo() as { name?: string }).name, 'X25519')
    socket.destroy()
    await using strict = await serveTls({ requirePqKem: true })
    const refused = await handshake(strict.listener.port, { ecdhCurve: 'X25519' })
    assert.equal(refused.getProtocol() === 'TLSv1.3' && !refused.destroyed, false)
    await check(strict.connect({ requirePqKem: true }))
  })

  it('tells both ends the group of every connection, and the server of the failures', async () => {
    const outcomes: TlsHandshake[] = []
    const onHandshake = (outcome: TlsHandshake) => void outcomes.push(outcome)
    await using strict = await serveTls({ requirePqKem: true, onHandshake })
    const groups: string[] = []
    const onConnected = (group: string) => void groups.push(group)
    await check(strict.connect({ onConnected }))
    await check(strict.connect({ profile: 'cnsa2', onConnected }))
    ;(await handshake(strict.listener.port, { ecdhCurve: 'X25519' })).destroy()
    ;(await handshake(strict.listener.port, { maxVersion: 'TLSv1.2' })).destroy()
    await until(() => outcomes.length === 4)
    assert.deepEqual(groups, ['X25519MLKEM768', 'SecP384r1MLKEM1024'])
    assert.deepEqual(outcomes, [
      { group: 'X25519MLKEM768' },
      { group: 'SecP384r1MLKEM1024' },
      { failure: 'no-common-group' },
      { failure: 'other' },
    ])
  })

  for (const [group, name] of [
    ['X25519', 'X25519'],
    ['prime256v1', 'P-256'],
  ] as const) {
    it(`names the classical group ${name}`, async () => {
      const outcomes: TlsHandshake[] = []
      await using lenient = await serveTls({
        onHandshake: (outcome) => void outcomes.push(outcome),
      })
      const socket = await handshake(lenient.listener.port, { ecdhCurve: group })
      await until(() => outcomes.length === 1)
      socket.destroy()
      assert.deepEqual(outcomes, [{ group: name }])
    })
  }

  it('with the profile cnsa2 agrees by SecP384r1MLKEM1024 and AES-256 alone, and serves default peers', async () => {
    await using served = await serveTls({ profile: 'cnsa2' })
    await check(served.connect({ profile: 'cnsa2' }))
    // A peer that has not moved over yet has this key agreement in its list.
    await check(served.connect())
    const old = await handshake(served.listener.port, { ecdhCurve: 'X25519MLKEM768' })
    assert.equal(old.destroyed, true)
    const weak = await handshake(served.listener.port, {
      ecdhCurve: 'SecP384r1MLKEM1024',
      ciphers: 'TLS_AES_128_GCM_SHA256',
    })
    assert.equal(weak.destroyed, true)
  })

  it('says which key agreements it offered when a server takes none of them', async () => {
    const server = createNodeTls({
      key: serverIdentity.key.export({ type: 'pkcs8', format: 'pem' }),
      cert: encodePem('CERTIFICATE', serverIdentity.certificates[0] as Uint8Array),
      ecdhCurve: 'X25519',
    })
    server.on('tlsClientError', () => {}).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const connection = connectTls({
      host: '127.0.0.1',
      port,
      clock,
      requirePqKem: true,
      verifyServer: () => {},
    })
    await assert.rejects(check(connection), {
      reason: 'no-common-key-agreement',
      message: /key agreement by X25519MLKEM768, SecP384r1MLKEM1024; compare require_pq_kem/,
    })
    connection.close()
    server.close()
  })

  it('refuses TLS 1.2 and a client that does not offer HTTP/2', async () => {
    await using served = await serveTls()
    const old = await handshake(served.listener.port, { maxVersion: 'TLSv1.2' })
    assert.equal(old.destroyed, true)
    const http1 = await handshake(served.listener.port, { ALPNProtocols: ['http/1.1'] })
    await until(() => http1.destroyed)
    const none = connectNodeTls({
      host: '127.0.0.1',
      port: served.listener.port,
      rejectUnauthorized: false,
    })
    none.on('error', () => {}).resume()
    await new Promise((resolve) => none.once('close', resolve))
    assert.equal(served.peers.length, 0)
  })

  it('gives both ends the same keying material, and each connection another', async () => {
    await using served = await serveTls()
    const first = served.connect()
    const second = served.connect()
    await check(first)
    await check(second)
    const label = 'EXPORTER-assay-test'
    assert.deepEqual(first.exporter(label, 32), served.peers[0]?.exporter(label, 32))
    assert.deepEqual(second.exporter(label, 32), served.peers[1]?.exporter(label, 32))
    assert.notDeepEqual(first.exporter(label, 32), second.exporter(label, 32))
    assert.notDeepEqual(first.exporter(label, 32), first.exporter('EXPORTER-other', 32))
  })

  it('shows a new identity to new connections and leaves old ones alone', async () => {
    let identity = serverIdentity
    const trusted = [authority]
    await using served = await serveTls({ identity: () => identity })
    const serials: string[] = []
    const options = {
      verifyServer: (chain: readonly Uint8Array[]) => {
        serials.push(verifier(...trusted)(chain).serialNumber)
      },
    }
    const before = served.connect(options)
    await check(before)
    const stream = before.client(HealthDefinition).watch({})[Symbol.asyncIterator]()
    await stream.next()

    trusted.push(otherAuthority)
    identity = identityOf(
      newSvid(otherAuthority, 'spiffe://example.org/spire/server', { serial: 77n }),
    )
    served.listener.updateIdentity()
    await check(served.connect(options))
    assert.equal(serials[1], '77')
    await check(before)
    assert.equal(serials.length, 2)
    await stream.return?.()
  })

  it('asks old connections to end at maxConnectionAgeMs, and their streams go on', async () => {
    await using served = await serveTls({ maxConnectionAgeMs: 100 })
    const connection = served.connect()
    const stream = connection.client(HealthDefinition).watch({})[Symbol.asyncIterator]()
    await stream.next()
    const first = connection.exporter('EXPORTER-assay-test', 32).toHex()
    await until(() => connection.state === 'idle')
    await check(connection)
    assert.notEqual(connection.exporter('EXPORTER-assay-test', 32).toHex(), first)
    assert.equal(served.server.connections, 2)
    await stream.return?.()
  })

  it('gives up on a handshake that takes longer than handshakeTimeoutMs', async () => {
    await using served = await serveTls({ handshakeTimeoutMs: 50 })
    const socket = connectSocket(served.listener.port, '127.0.0.1')
      .on('error', () => {})
      .resume()
    await once(socket, 'connect')
    await new Promise((resolve) => socket.once('close', resolve))
    await until(() => served.server.connections === 0)
  })

  it('carries 3,000,000 bytes there and back', async () => {
    await using served = await serveTls()
    const csr = random.bytes(3_000_000)
    const { svid } = await served.connect().client(AgentDefinition).renewAgent({ params: { csr } })
    assert.deepEqual(new Uint8Array(svid?.certChain[0] ?? []), csr)
  })

  it('says which address it cannot listen on', async () => {
    await using served = await serveTls()
    await using second = newServer()
    await assert.rejects(
      second.listenTls({
        address: '127.0.0.1',
        port: served.listener.port,
        identity: () => serverIdentity,
        verifyClient: verifier(authority),
      }),
      {
        code: 'failed-precondition',
        message: /cannot listen on 127\.0\.0\.1 port \d+: .*EADDRINUSE/,
      },
    )
  })
})

describe('connectTls()', () => {
  it('refuses a server that the verifier refuses, before it has shown itself', async () => {
    await using served = await serveTls({ verifyClient: verifier(authority, otherAuthority) })
    const connection = served.connect({
      identity: identityOf(agentSvid),
      verifyServer: (chain) => void verifier(otherAuthority)(chain),
    })
    await assert.rejects(check(connection), {
      code: 'unavailable',
      reason: 'unknown-authority',
      message: /^cannot reach 127\.0\.0\.1:\d+: /,
    })
    await assert.rejects(connection.connect({ signal: AbortSignal.timeout(5000) }), {
      reason: 'unknown-authority',
    })
    assert.equal(served.peers.length, 0)
    assert.throws(() => connection.exporter('EXPORTER-x', 32), { reason: 'not-connected' })
  })

  it('says which address does not answer', async () => {
    const unused = createTcpServer()
    await new Promise<void>((resolve) => unused.listen(0, '127.0.0.1', resolve))
    const { port } = unused.address() as AddressInfo
    unused.close()
    using connection = connectTls({ host: '127.0.0.1', port, clock, verifyServer: () => {} })
    await assert.rejects(connection.connect({ signal: AbortSignal.timeout(5000) }), {
      code: 'unavailable',
      reason: 'not-connected',
      message: `cannot reach 127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`,
    })
  })

  it('connects by name, and sends it in the handshake', async () => {
    await using served = await serveTls()
    await check(served.connect({ host: 'localhost', serverName: 'assay.example' }))
    assert.equal(served.peers.length, 1)
  })

  it('tells of its states', async () => {
    await using served = await serveTls()
    const states: string[] = []
    const connection = served.connect({ onState: (state) => states.push(state) })
    assert.equal(connection.state, 'idle')
    await connection.connect({ signal: AbortSignal.timeout(5000) })
    assert.equal(connection.state, 'ready')
    connection.close()
    assert.equal(connection.state, 'closed')
    await assert.rejects(check(connection), { code: 'unavailable', reason: 'connection-closed' })
    assert.deepEqual(states, ['connecting', 'ready', 'closed'])
  })

  it('connects anew after the server was away', async () => {
    const first = await serveTls()
    const { port } = first.listener
    using connection = connectTls({
      host: '127.0.0.1',
      port,
      clock,
      maxReconnectMs: 50,
      verifyServer: (chain) => void verifier(authority)(chain),
    })
    await check(connection)
    await first[Symbol.asyncDispose]()
    await assert.rejects(check(connection), { code: 'unavailable' })
    await using second = await serveTls({ port })
    await until(() => {
      connection.connect({ signal: AbortSignal.timeout(1000) }).catch(() => {})
      return connection.state === 'ready'
    })
    await check(connection)
    assert.equal(second.peers.length, 1)
  })

  it('never connects a second time when pinned', async () => {
    await using served = await serveTls()
    const pinned = served.connect({ pinned: true, maxReconnectMs: 50 })
    await pinned.connect({ signal: AbortSignal.timeout(5000) })
    const material = pinned.exporter('EXPORTER-assay-test', 32)
    await check(pinned)
    assert.deepEqual(served.peers[0]?.exporter('EXPORTER-assay-test', 32), material)
    const { port } = served.listener
    await served.server.stop(0)
    await using second = await serveTls({ port })
    await assert.rejects(check(pinned), { code: 'unavailable' })
    await until(() => pinned.state !== 'connecting')
    await assert.rejects(pinned.connect({ signal: AbortSignal.timeout(5000) }), {
      code: 'unavailable',
      reason: 'pinned-connection-lost',
    })
    assert.throws(() => pinned.exporter('EXPORTER-assay-test', 32), { reason: 'not-connected' })
    assert.equal(second.peers.length, 0)
  })
})

describe('a request id', () => {
  const named = '01234567-89ab-4cde-8f01-23456789abcd'
  const idGivenTo = (connection: Connection, requestId: string): Promise<string | undefined> =>
    connection
      .client(AgentDefinition)
      .countAgents({}, { requestId })
      .then(
        () => assert.fail('it is not implemented'),
        (error: unknown) => requestIdOf(error),
      )

  it('is what a client with a SPIFFE ID has named its call, when that is a UUID', async () => {
    await using served = await serveTls()
    const connection = served.connect({ identity: identityOf(agentSvid) })
    assert.equal(await idGivenTo(connection, named), named)
    assert.match((await idGivenTo(connection, `${named}0`)) ?? '', /^[0-9a-f-]{36}$/)
    assert.match((await idGivenTo(connection, 'admin')) ?? '', /^[0-9a-f-]{36}$/)
  })

  it('is not what a stranger says', async () => {
    await using served = await serveTls()
    assert.notEqual(await idGivenTo(served.connect(), named), named)
  })
})

describe('perPeer', () => {
  it('counts a call as ended also when no service has its method, and refuses what is too much', async () => {
    const refused: string[] = []
    await using served = await serveTls({
      perPeer: { maxCalls: 3, maxRequestBytes: 100_000 },
      onExcess: (excess) => refused.push(excess),
    })
    const connection = served.connect({ identity: identityOf(agentSvid) })
    for (let i = 0; i < 10; i++) {
      await assert.rejects(connection.client(EntryDefinition).countEntries({}), {
        code: 'unimplemented',
      })
    }
    const agent = connection.client(AgentDefinition)
    const large = { params: { csr: new Uint8Array(200_000) } }
    // Which of them it is, depends on how much the client had still to send.
    await assert.rejects(agent.renewAgent(large), { code: /^(resource-exhausted|unavailable)$/ })
    assert.deepEqual(refused, ['request-bytes'])
    const small = { params: { csr: new Uint8Array(90_000) } }
    assert.equal((await agent.renewAgent(small)).svid?.certChain[0]?.length, 90_000)
    assert.equal((await agent.renewAgent(small)).svid?.certChain[0]?.length, 90_000)
  })
})
