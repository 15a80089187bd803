import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { connect as connectSocket, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { isAlive } from '#host/process.ts'
import { nobody, noOtherUser } from '../../test/support/another-user.ts'
import {
  clock,
  echo,
  keepingLog,
  type Logged,
  newServer,
  random,
  type Services,
  serve,
  temporaryFolder,
  until,
} from '../../test/support/rpc.ts'
import type { CallContext, Peer, UnixPeer } from './call.ts'
import { type Connection, connectUnix } from './client.ts'
import {
  HealthDefinition,
  HealthCheckResponse_ServingStatus as Serving,
} from './gen/grpc/health/v1/health.ts'
import { SpiffeWorkloadAPIDefinition } from './gen/spiffe/workload/workload.ts'
import { AgentDefinition } from './gen/spire/api/server/agent/v1/agent.ts'
import { RpcServer } from './server.ts'
import { requestIdOf } from './status.ts'

const isRoot = process.getuid?.() === 0
const serving = { status: Serving.SERVING }

/** A program that connects to a Unix socket, holds on until its input ends, and exits. */
const holdOpen = `
  const s = require('node:net').connect(process.argv[1], () => process.stdout.write('connected'))
  process.stdin.resume().on('end', () => process.exit())`

/** Health as a client has it that sends what is no message. */
const malformedHealth = {
  ...HealthDefinition,
  methods: {
    check: {
      ...HealthDefinition.methods.check,
      requestType: {
        encode: () => ({ finish: () => Uint8Array.of(0x0a, 0xff) }),
        decode: (bytes: Uint8Array) => bytes,
        fromPartial: (message: object) => message,
      },
    },
  },
}

describe('RpcServer on a Unix socket', () => {
  it('answers a unary call, a stream and a stream each way', async () => {
    await using served = await serve({
      agent: echo,
      health: {
        check: async () => serving,
        async *watch() {
          yield serving
          yield { status: Serving.NOT_SERVING }
        },
      },
    })
    const health = served.connection.client(HealthDefinition)
    assert.deepEqual(await health.check({ service: 'x' }), serving)
    assert.deepEqual(await Array.fromAsync(health.watch({})), [serving, { status: 2 }])

    using call = served.connection.client(AgentDefinition).attestAgent()
    for (const value of [Uint8Array.of(1), Uint8Array.of(2)]) {
      await call.send({ step: { $case: 'challengeResponse', value } })
      const answer = await call.receive()
      assert.deepEqual(new Uint8Array(answer?.step?.value as Uint8Array), value)
    }
    call.end()
    assert.equal(await call.receive(), undefined)
  })

  for (const bytes of [0, 16_384, 16_385, 65_535, 65_536, 200_000, 3_000_000]) {
    it(`carries ${bytes} bytes there and back, unary and in a stream`, async () => {
      await using served = await serve({ agent: echo })
      const agent = served.connection.client(AgentDefinition)
      const payload = random.bytes(bytes)
      const { svid } = await agent.renewAgent({ params: { csr: payload } })
      assert.ok(payload.every((byte, i) => byte === svid?.certChain[0]?.[i]))
      assert.equal(svid?.certChain[0]?.length, bytes)
      using call = agent.attestAgent()
      await call.send({ step: { $case: 'challengeResponse', value: payload } })
      const answer = await call.receive()
      assert.equal(answer?.step?.value instanceof Uint8Array && answer.step.value.length, bytes)
      call.end()
    })
  }

  it('refuses a request above maxRequestBytes', async () => {
    using folder = temporaryFolder()
    await using server = newServer()
    server.addService(AgentDefinition, echo)
    const path = join(folder.path, 's')
    await server.listenUnix({ path, mode: 0o777, maxRequestBytes: 1000 })
    using connection = connectUnix(path, { clock })
    await assert.rejects(
      connection.client(AgentDefinition).renewAgent({ params: { csr: new Uint8Array(1001) } }),
      { code: 'resource-exhausted' },
    )
  })

  it('answers UNIMPLEMENTED for a handler that is left out and for a service it has not', async () => {
    await using served = await serve({ health: {} })
    await assert.rejects(served.connection.client(HealthDefinition).check({}), {
      code: 'unimplemented',
    })
    await assert.rejects(Array.fromAsync(served.connection.client(HealthDefinition).watch({})), {
      code: 'unimplemented',
    })
    await assert.rejects(served.connection.client(AgentDefinition).getAgent({}), {
      code: 'unimplemented',
    })
  })

  it('has forgotten a call that was answered unread, where those of a peer are counted', async () => {
    using folder = temporaryFolder()
    await using server = newServer()
    server.addService(AgentDefinition, echo)
    const path = join(folder.path, 's')
    const perPeer = { maxRequestBytes: 1000 }
    await server.listenUnix({ path, mode: 0o777, perPeer, maxConcurrentStreams: 2 })
    using connection = connectUnix(path, { clock })
    for (let call = 0; call < 5; call++) {
      await assert.rejects(
        connection.client(HealthDefinition).check({ service: 'a'.repeat(400) }),
        {
          code: 'unimplemented',
        },
      )
    }
  })

  it('answers INVALID_ARGUMENT to a message that cannot be decoded', async () => {
    await using served = await serve({ health: { check: async () => serving } })
    await assert.rejects(served.connection.client(malformedHealth).check({}), {
      code: 'invalid-argument',
      reason: 'malformed-request',
    })
  })

  it('does not decode the message of a call that an interceptor refuses', async () => {
    await using served = await serve({ health: { check: async () => serving } }, (server) => {
      server.use(async () => {
        throw new AssayError('permission-denied', 'no', { reason: 'refused' })
      })
    })
    await assert.rejects(served.connection.client(malformedHealth).check({}), { reason: 'refused' })
  })

  it('tells who is at the other end, from connect to close', async () => {
    const peers: Peer[] = []
    await using served = await serve({
      health: {
        async check(_request, context) {
          peers.push(context.peer)
          return serving
        },
      },
    })
    await served.connection.client(HealthDefinition).check({})
    const peer = peers[0] as UnixPeer
    assert.equal(peer.kind, 'unix')
    assert.deepEqual(
      [peer.pid, peer.uid, peer.gid],
      [process.pid, process.getuid?.(), process.getgid?.()],
    )
    assert.ok(peer.startTime > 0n)
    assert.ok(isAlive(peer.pidfd ?? -1))
    served.connection.close()
    await until(() => served.server.connections === 0)
    assert.throws(() => isAlive(peer.pidfd ?? -1), { code: 'EBADF' })
  })

  it('tells the user of another process', {
    skip: noOtherUser,
  }, async () => {
    const { promise, resolve } = Promise.withResolvers<Peer>()
    await using served = await serve({
      health: {
        async check(_request, context) {
          resolve(context.peer)
          return serving
        },
      },
    })
    chmodSync(join(served.path, '..'), 0o755)
    const program = `
      import { connectUnix } from ${JSON.stringify(new URL('./client.ts', import.meta.url).href)}
      import { SystemClock } from ${JSON.stringify(new URL('../base/clock.ts', import.meta.url).href)}
      import { HealthDefinition } from ${JSON.stringify(new URL('./gen/grpc/health/v1/health.ts', import.meta.url).href)}
      using c = connectUnix(process.argv[1], { clock: new SystemClock() })
      await c.client(HealthDefinition).check({})`
    const child = spawn(
      process.execPath,
      ['--input-type=module-typescript', '-e', program, served.path],
      {
        ...nobody,
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    )
    const peer = (await promise) as UnixPeer
    await once(child, 'close')
    assert.deepEqual([peer.pid, peer.uid, peer.gid], [child.pid, 65534, 65534])
  })

  it('aborts the signal of the context when the caller cancels', async () => {
    const { promise: started, resolve: start } = Promise.withResolvers<CallContext>()
    await using served = await serve({
      health: {
        async check(_request, context) {
          start(context)
          await once(context.signal, 'abort')
          throw context.signal.reason
        },
      },
    })
    const cancel = new AbortController()
    const call = served.connection.client(HealthDefinition).check({}, { signal: cancel.signal })
    const context = await started
    cancel.abort(new Error('no longer wanted'))
    await assert.rejects(call, { message: 'no longer wanted' })
    await until(() => context.signal.aborted)
    assert.equal((context.signal.reason as AssayError).reason, 'cancelled')
  })

  it('leaves the signal of a call that has its answer alone', async () => {
    const contexts: CallContext[] = []
    await using served = await serve({
      health: {
        async check(_request, context) {
          contexts.push(context)
          return serving
        },
        async *watch(_request, context) {
          contexts.push(context)
          yield serving
        },
      },
    })
    {
      using connection = served.connection
      const health = connection.client(HealthDefinition)
      await health.check({})
      await Array.fromAsync(health.watch({}))
    }
    await until(() => served.server.connections === 0)
    assert.deepEqual(
      contexts.map(({ signal }) => signal.aborted),
      [false, false],
    )
  })

  it('tells a handler that its deadline has passed, and the caller too', async () => {
    const contexts: CallContext[] = []
    await using served = await serve({
      health: {
        check: (_request, context) => {
          contexts.push(context)
          return new Promise(() => {})
        },
      },
    })
    // A busy machine may let the time pass before the handler is reached.
    for (let timeoutMs = 30; contexts.length === 0; timeoutMs *= 2) {
      await assert.rejects(served.connection.client(HealthDefinition).check({}, { timeoutMs }), {
        code: 'unavailable',
        reason: 'deadline-exceeded',
      })
    }
    await until(() => contexts.some(({ signal }) => signal.aborted))
  })

  it('ends a generator whose caller has gone, even one that does not look', async () => {
    let returned = false
    await using served = await serve({
      health: {
        async *watch() {
          try {
            for (;;) {
              yield serving
              await clock.sleep(
                Temporal.Duration.from({ milliseconds: 1 }),
                new AbortController().signal,
              )
            }
          } finally {
            returned = true
          }
        },
      },
    })
    for await (const answer of served.connection.client(HealthDefinition).watch({})) {
      assert.deepEqual(answer, serving)
      break
    }
    await until(() => returned)
  })

  it('lets a connection cancel as often as maxCancelsPerSecond says, and closes one that does more', async () => {
    const forever: Services = {
      health: {
        async *watch(_request, { signal }) {
          yield serving
          await once(signal, 'abort')
        },
      },
    }
    const cancelMany = async (connection: Connection): Promise<void> => {
      const health = connection.client(HealthDefinition)
      for (let round = 0; round < 25; round++) {
        const cancelled = Array.from({ length: 50 }, async () => {
          for await (const _answer of health.watch({})) break
        })
        await Promise.all(cancelled)
      }
    }
    await using served = await serve(forever)
    await assert.rejects(cancelMany(served.connection), AssayError)
    using folder = temporaryFolder()
    await using server = newServer()
    server.addService(HealthDefinition, forever.health ?? {})
    const path = join(folder.path, 'generous.sock')
    await server.listenUnix({ path, mode: 0o777, maxCancelsPerSecond: 10_000 })
    using connection = connectUnix(path, { clock })
    await cancelMany(connection)
  })

  it('holds a producer back when the reader does not read', async () => {
    let produced = 0
    await using served = await serve({
      workload: {
        async *fetchX509Bundles() {
          for (; produced < 1000; produced++) {
            yield { crl: [new Uint8Array(100_000)], bundles: new Map() }
          }
        },
      },
    })
    const stream = served.connection.client(SpiffeWorkloadAPIDefinition).fetchX509Bundles({})
    let taken = 0
    for await (const _message of stream) {
      taken++
      if (taken === 1)
        await clock.sleep(Temporal.Duration.from({ milliseconds: 50 }), AbortSignal.timeout(1000))
      if (taken === 3) break
    }
    assert.ok(produced < 100, `${produced} messages were produced for 3 taken`)
  })

  it('runs interceptors around every call, the first outermost, and shows them the outcome', async () => {
    const seen: string[] = []
    await using served = await serve(
      {
        agent: echo,
        health: {
          check: async () => serving,
          // biome-ignore lint/correctness/useYield: it fails before its first answer
          async *watch() {
            throw new AssayError('not-found', 'no such thing')
          },
        },
      },
      (server) => {
        for (const name of ['outer', 'inner']) {
          server.use(async ({ context, request }, next) => {
            seen.push(`${name} ${context.method.split('/')[2]} ${typeof request}`)
            await next().catch((error: AssayError) => {
              seen.push(`${name} ${error.code}`)
              throw error
            })
          })
        }
      },
    )
    const health = served.connection.client(HealthDefinition)
    await health.check({})
    await assert.rejects(Array.fromAsync(health.watch({})), { code: 'not-found' })
    using call = served.connection.client(AgentDefinition).attestAgent()
    call.end()
    assert.equal(await call.receive(), undefined)
    assert.deepEqual(seen, [
      'outer Check object',
      'inner Check object',
      'outer Watch object',
      'inner Watch object',
      'inner not-found',
      'outer not-found',
      'outer AttestAgent undefined',
      'inner AttestAgent undefined',
    ])
  })

  it('does not reach the handler when an interceptor refuses', async () => {
    let reached = false
    await using served = await serve(
      {
        health: {
          async check() {
            reached = true
            return serving
          },
        },
      },
      (server) =>
        server.use(async () => {
          throw new AssayError('permission-denied', 'not you', { reason: 'agent-banned' })
        }),
    )
    await assert.rejects(served.connection.client(HealthDefinition).check({}), {
      code: 'permission-denied',
      reason: 'agent-banned',
      message: 'not you',
    })
    assert.equal(reached, false)
  })

  it('hides the text of a fault and logs it under the request id the client is given', async () => {
    const records: Logged[] = []
    using folder = temporaryFolder()
    await using server = newServer(keepingLog(records))
    server.addService(HealthDefinition, {
      async check() {
        throw new Error('password is hunter2')
      },
    })
    const path = join(folder.path, 's')
    await server.listenUnix({ path, mode: 0o777 })
    using connection = connectUnix(path, { clock })
    const error = await connection
      .client(HealthDefinition)
      .check({})
      .catch((thrown: unknown) => thrown)
    assert.ok(error instanceof AssayError)
    assert.equal(error.code, 'internal')
    assert.ok(!error.message.includes('hunter2'))
    const logged = records.find(({ level }) => level === 'error')
    assert.equal(logged?.fields['requestId'], requestIdOf(error))
    assert.ok(requestIdOf(error) !== undefined)
  })

  it('hands over request headers', async () => {
    const seen: (readonly string[])[] = []
    await using served = await serve({
      health: {
        async check(_request, context) {
          seen.push(context.metadata('workload.spiffe.io'), context.metadata('absent'))
          return serving
        },
      },
    })
    const metadata = { 'workload.spiffe.io': 'true' }
    await served.connection.client(HealthDefinition).check({}, { metadata })
    assert.deepEqual(seen, [['true'], []])
  })
})

describe('listenUnix()', () => {
  it('gives the socket its mode whatever the umask, and makes its folder', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'a/b/s')
    const before = process.umask(0o077)
    try {
      await using server = newServer()
      await server.listenUnix({ path, mode: 0o770, directoryMode: 0o750 })
      assert.equal(statSync(path).mode & 0o777, 0o770)
      assert.equal(statSync(join(path, '..')).mode & 0o777, 0o750)
      assert.equal(statSync(join(path, '../..')).mode & 0o777, 0o755)
    } finally {
      process.umask(before)
    }
    assert.equal(existsSync(path), false)
  })

  it('leaves the mode of a folder that is there', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'a/s')
    mkdirSync(join(path, '..'), { mode: 0o700 })
    await using server = newServer()
    await server.listenUnix({ path, mode: 0o770 })
    assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700)
  })

  it('replaces the socket of a server that was killed', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 's')
    const listen =
      'require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, 9))'
    spawnSync(process.execPath, ['-e', listen, path])
    assert.ok(statSync(path).isSocket())
    await using server = newServer()
    server.addService(HealthDefinition, { check: async () => serving })
    await server.listenUnix({ path, mode: 0o777 })
    using connection = connectUnix(path, { clock })
    assert.deepEqual(await connection.client(HealthDefinition).check({}), serving)
  })

  it('leaves the socket of a live server alone', async () => {
    await using served = await serve({ health: { check: async () => serving } })
    await using second = newServer()
    await assert.rejects(second.listenUnix({ path: served.path, mode: 0o777 }), {
      code: 'failed-precondition',
      reason: 'socket-in-use',
      message: /another process is listening/,
    })
    assert.deepEqual(await served.connection.client(HealthDefinition).check({}), serving)
  })

  it('leaves a file alone that is no socket', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 's')
    writeFileSync(path, 'kept')
    await using server = newServer()
    await assert.rejects(server.listenUnix({ path, mode: 0o777 }), { reason: 'socket-in-use' })
    assert.equal(statSync(path).size, 4)
  })

  for (const [path, why] of [
    ['relative/s', /not absolute/],
    [`/tmp/${'x'.repeat(103)}`, /108 bytes long/],
  ] as const) {
    it(`refuses the path ${path.slice(0, 12)}`, async () => {
      await using server = newServer()
      await assert.rejects(server.listenUnix({ path, mode: 0o777 }), {
        code: 'failed-precondition',
        message: why,
      })
    })
  }

  it('serves a socket that is passed in', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 's')
    const at = (file: string): string => JSON.stringify(new URL(file, import.meta.url).href)
    const program = `
      import { newServer } from ${at('../../test/support/rpc.ts')}
      import { HealthDefinition } from ${at('./gen/grpc/health/v1/health.ts')}
      const server = newServer()
      server.addService(HealthDefinition, { check: async () => ({ status: 1 }) })
      await server.listenUnix({ path: process.argv[1], mode: 0, fd: 3 })`
    // As systemd does it: the socket listens before the server exists, and is its descriptor 3.
    const activate = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print('listening', flush=True)
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.execv(sys.argv[2], sys.argv[2:])`
    const node = [process.execPath, '--input-type=module-typescript', '-e', program, path]
    const child = spawn('python3', ['-c', activate, path, ...node], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    using connection = connectUnix(path, { clock })
    assert.deepEqual(await connection.client(HealthDefinition).check({}), serving)
    child.kill()
    await once(child, 'close')
  })

  it('refuses a user more connections than maxConnectionsPerUser', {
    skip: isRoot && noOtherUser,
  }, async () => {
    using folder = temporaryFolder()
    chmodSync(folder.path, 0o755)
    const path = join(folder.path, 's')
    const records: Logged[] = []
    await using server = newServer(keepingLog(records))
    await server.listenUnix({ path, mode: 0o777, maxConnectionsPerUser: 2 })
    const children = []
    for (let i = 0; i < 3; i++) {
      const child = spawn(process.execPath, ['-e', holdOpen, path], {
        stdio: ['pipe', 'pipe', 'inherit'],
        // Root is not limited.
        ...(isRoot && nobody),
      })
      await once(child.stdout, 'data')
      children.push(child)
    }
    await until(() => records.some(({ message }) => message.includes('too many')))
    await until(() => server.connections === 2)
    for (const child of children) {
      child.stdin.end()
      await once(child, 'close')
    }
  })

  it('keeps no descriptor of 200 connections', async () => {
    await using served = await serve({ health: { check: async () => serving } })
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    await served.connection.client(HealthDefinition).check({})
    const before = descriptors()
    for (let i = 0; i < 200; i++) {
      using connection = served.connect()
      await connection.client(HealthDefinition).check({})
    }
    await until(() => served.server.connections === 1)
    await until(() => descriptors() <= before)
  })
})

/** What an HTTP/2 client begins with: its preface and an empty SETTINGS frame (RFC 9113 §3.4). */
const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'

const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => socket.once('close', () => resolve()))

describe('RpcServer against clients that mean ill', () => {
  const seconds = (value: number): Temporal.Duration => Temporal.Duration.from({ seconds: value })

  async function slowServer(
    run: (clock: FakeClock, path: string, server: RpcServer) => Promise<void>,
  ) {
    using folder = temporaryFolder()
    const path = join(folder.path, 's')
    const fake = new FakeClock()
    const server = new RpcServer({ log: silentLog, random, clock: fake })
    server.addService(HealthDefinition, { check: async () => serving })
    await server.listenUnix({ path, mode: 0o777 })
    try {
      await run(fake, path, server)
    } finally {
      await server.stop(0)
    }
  }

  it('closes a connection that sends no preface in 5 s', () =>
    slowServer(async (fake, path, server) => {
      const socket = connectSocket(path)
        .on('error', () => {})
        .resume()
      await until(() => fake.sleeping === 1)
      socket.write('PRI * HTTP')
      await fake.advance(seconds(4))
      assert.equal(server.connections, 1)
      await fake.advance(seconds(1))
      await closed(socket)
    }))

  it('closes a connection that makes no call in 60 s', () =>
    slowServer(async (fake, path, server) => {
      const socket = connectSocket(path)
        .on('error', () => {})
        .resume()
      socket.write(preface, 'latin1')
      await once(socket.resume(), 'data')
      await until(() => fake.sleeping === 1)
      await fake.advance(seconds(59))
      assert.equal(server.connections, 1)
      await fake.advance(seconds(1))
      await closed(socket)
    }))

  it('keeps a connection that has made a call', () =>
    slowServer(async (fake, path, server) => {
      using connection = connectUnix(path, { clock })
      await connection.client(HealthDefinition).check({})
      await fake.advance(seconds(3600))
      assert.equal(server.connections, 1)
      assert.deepEqual(await connection.client(HealthDefinition).check({}), serving)
    }))

  it('survives what is not HTTP/2, and method names of any bytes', async () => {
    await using served = await serve({ health: { check: async () => serving } })
    for (const bytes of [
      'GET / HTTP/1.1\r\n\r\n',
      '\0'.repeat(100),
      `${preface}\xff\xff\xff\xff`,
    ]) {
      const socket = connectSocket(served.path).on('error', () => {})
      socket.write(bytes, 'latin1')
      socket.end()
      await closed(socket.resume())
    }
    for (const name of ['\xff\xfe', '%', '\ud800', 'a b', 'x'.repeat(3000)]) {
      const { check } = HealthDefinition.methods
      const odd = { ...HealthDefinition, methods: { check: { ...check, name } } }
      await assert.rejects(served.connection.client(odd).check({}), AssayError)
    }
    assert.deepEqual(await served.connection.client(HealthDefinition).check({}), serving)
  })

  it('tells of a message that no trailer can carry as it is', async () => {
    await using served = await serve({
      health: {
        async check({ service }) {
          throw new AssayError('not-found', service)
        },
      },
    })
    const health = served.connection.client(HealthDefinition)
    for (const [text, told] of [
      ['100 %\r\n\0 æ 🔑', '100 %\r\n\0 æ 🔑'],
      ['x'.repeat(100_000), 'x'.repeat(2048)],
      [`${'x'.repeat(2047)}🔑`, `${'x'.repeat(2047)}\ufffd`],
    ] as const) {
      await assert.rejects(health.check({ service: text }), { code: 'not-found', message: told })
    }
  })
})

describe('RpcServer.stop()', () => {
  it('lets a call finish, ends streams with UNAVAILABLE, and refuses what comes after', async () => {
    const { promise: release, resolve: finish } = Promise.withResolvers<void>()
    const { promise: running, resolve: run } = Promise.withResolvers<void>()
    await using served = await serve({
      health: {
        async check() {
          run()
          await release
          return serving
        },
        async *watch(_request, { signal }) {
          yield serving
          await once(signal, 'abort')
          throw signal.reason
        },
      },
    })
    const health = served.connection.client(HealthDefinition)
    const call = health.check({})
    const stream = health.watch({})[Symbol.asyncIterator]()
    assert.deepEqual((await stream.next()).value, serving)
    await running
    const stopped = served.server.stop()
    await assert.rejects(stream.next(), { code: 'unavailable', reason: 'server-stopping' })
    finish()
    assert.deepEqual(await call, serving)
    await stopped
    assert.equal(served.server.connections, 0)
    await assert.rejects(health.check({}), { code: 'unavailable' })
    await assert.rejects(served.server.listenUnix({ path: served.path, mode: 0o777 }), TypeError)
  })

  it('cuts off what has not ended when the grace is over', async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 's')
    const fake = new FakeClock()
    const server = new RpcServer({ log: silentLog, random, clock: fake })
    const { promise: running, resolve: run } = Promise.withResolvers<void>()
    server.addService(HealthDefinition, {
      check() {
        run()
        return new Promise(() => {})
      },
    })
    await server.listenUnix({ path, mode: 0o777 })
    using connection = connectUnix(path, { clock })
    const call = connection.client(HealthDefinition).check({})
    await running
    const stopped = server.stop(3000)
    await fake.advance(Temporal.Duration.from({ seconds: 3 }))
    await assert.rejects(call, { code: 'unavailable' })
    await stopped
    assert.equal(server.connections, 0)
  })
})

describe('RpcServer.addService()', () => {
  it('refuses a service twice, and one that comes too late', async () => {
    await using served = await serve({ health: {} }, (server) => {
      assert.throws(() => server.addService(HealthDefinition, {}), TypeError)
    })
    assert.throws(() => served.server.addService(AgentDefinition, {}), TypeError)
    assert.deepEqual(served.server.serviceNames, ['grpc.health.v1.Health'])
  })
})
