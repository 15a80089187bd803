import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2'
import { describe, it } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { newAuthority, newSvid } from '../../test/support/certificates.ts'
import { clock, echo, newServer, until } from '../../test/support/rpc.ts'
import { type Connection, connectTls } from './client.ts'
import { AgentDefinition } from './gen/spire/api/server/agent/v1/agent.ts'
import type { StrangerLimits } from './listener.ts'
import type { TlsIdentity } from './tls.ts'

const authority = newAuthority('example.org')
const agentId = parseSpiffeId('spiffe://example.org/spire/agent/x')
const agent = identityOf(agentId)

function identityOf(id: string): TlsIdentity {
  const { key, certificate } = newSvid(authority, id)
  return { key: key.privateKey, certificates: [certificate] }
}

/** A server on TLS that knows whoever shows a certificate. */
async function serve(strangers: Partial<StrangerLimits> = {}) {
  const stack = new AsyncDisposableStack()
  const server = stack.use(newServer())
  server.addService(AgentDefinition, echo)
  const identity = identityOf('spiffe://example.org/spire/server')
  const { port } = await server.listenTls({
    address: '127.0.0.1',
    port: 0,
    identity: () => identity,
    verifyClient: () => ({ spiffeId: agentId, serialNumber: '1', expiresAtSeconds: 2 ** 40 }),
    strangers: {
      maxConnectionsPerSource: 3,
      maxConcurrentStreams: 2,
      maxRequestBytes: 1024,
      maxConnectionAgeMs: 60_000,
      graceMs: 60_000,
      ...strangers,
    },
  })
  return {
    server,
    port,
    connect(shown?: TlsIdentity): Connection {
      const options = { host: '127.0.0.1', port, clock, verifyServer: () => {} }
      return stack.use(connectTls({ ...options, ...(shown !== undefined && { identity: shown }) }))
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** HTTP/2 without a certificate, by hand. */
async function strange(port: number): Promise<ClientHttp2Session & Disposable> {
  const session = connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  await once(session, 'remoteSettings')
  return Object.assign(session, { [Symbol.dispose]: () => session.destroy() })
}

/** Begins a call whose one message is announced with this many bytes, and sends none of them. */
function announce(session: ClientHttp2Session, bytes: number): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/spire.api.server.agent.v1.Agent/RenewAgent',
    'content-type': 'application/grpc',
    te: 'trailers',
  })
  stream.on('error', () => {})
  const header = new DataView(new ArrayBuffer(5))
  header.setUint32(1, bytes)
  stream.write(new Uint8Array(header.buffer))
  return stream
}

const csr = (bytes: number) => ({ params: { csr: new Uint8Array(bytes) } })

describe('RpcServer to TLS clients without a certificate', () => {
  it('takes small messages only, and refuses larger ones before they are sent', async () => {
    await using served = await serve()
    const stranger = served.connect().client(AgentDefinition)
    await stranger.renewAgent(csr(900))
    await assert.rejects(stranger.renewAgent(csr(2000)), { code: 'resource-exhausted' })
    await served.connect(agent).client(AgentDefinition).renewAgent(csr(100_000))
    using session = await strange(served.port)
    const [headers] = await once(announce(session, 1_000_000), 'response')
    assert.equal(headers['grpc-status'], '8')
  })

  it('allows them few calls at once', async () => {
    await using served = await serve()
    using session = await strange(served.port)
    assert.equal(session.remoteSettings.maxConcurrentStreams, 2)
  })

  it('lets one source have so many connections, and those with a certificate beside them', async () => {
    await using served = await serve({ maxConnectionsPerSource: 2 })
    const call = (connection: Connection) => connection.client(AgentDefinition).renewAgent(csr(1))
    const [first, second] = [served.connect(), served.connect()]
    await Promise.all([call(first), call(second)])
    await assert.rejects(call(served.connect()), AssayError)
    await call(served.connect(agent))
    first.close()
    await until(() => served.server.connections === 2)
    await call(served.connect())
  })

  it('closes their connections after a while, also with a call that never ends', async () => {
    await using served = await serve({ maxConnectionAgeMs: 50, graceMs: 50 })
    const known = served.connect(agent)
    await known.client(AgentDefinition).renewAgent(csr(1))
    using session = await strange(served.port)
    announce(session, 1000)
    await once(session, 'goaway')
    await once(session, 'close')
    await until(() => served.server.connections === 1)
  })
})
