import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log.ts'
import { type CheckResult, Health } from './health.ts'
import { healthRoutes, listenHttp, metricsRoutes } from './http.ts'
import { Metrics } from './metrics.ts'

const well: CheckResult = { live: true, ready: true }
const loopback = { address: '127.0.0.1', port: 0, log: silentLog }

test('Health.report() is ready only when every part is, and not before there is one', () => {
  const health = new Health()
  assert.deepEqual(health.report(), { live: true, ready: false, checks: {} })
  using _store = health.register('datastore', () => well)
  assert.equal(health.report().ready, true)
  using keys = health.register('key-manager', () => ({ live: true, ready: false, detail: 'PIN' }))
  assert.deepEqual(health.report(), {
    live: true,
    ready: false,
    checks: { datastore: well, 'key-manager': { live: true, ready: false, detail: 'PIN' } },
  })
  keys[Symbol.dispose]()
  assert.equal(health.report().ready, true)
})

test('Health.report() takes a check that throws for not ready, and says why', () => {
  const health = new Health()
  using _check = health.register('ca', () => {
    throw new Error('no key')
  })
  assert.deepEqual(health.report().checks, { ca: { live: true, ready: false, detail: 'no key' } })
})

test('Health.register() refuses a name twice', () => {
  const health = new Health()
  using _first = health.register('ca', () => well)
  assert.throws(() => health.register('ca', () => well), TypeError)
})

test('listenHttp() answers probes with 200 or 503 and the state of every part', async () => {
  const health = new Health()
  let ready = false
  using _check = health.register('ca', () => ({ live: true, ready }))
  await using listener = await listenHttp({ ...loopback, routes: healthRoutes(health) })
  const get = (path: string): Promise<Response> => fetch(`http://127.0.0.1:${listener.port}${path}`)
  assert.equal((await get('/live')).status, 200)
  const notReady = await get('/ready')
  assert.equal(notReady.status, 503)
  assert.deepEqual(await notReady.json(), {
    live: true,
    ready: false,
    checks: { ca: { live: true, ready: false } },
  })
  ready = true
  assert.equal((await get('/ready?x=1')).status, 200)
  assert.equal((await get('/')).status, 404)
})

test('listenHttp() serves metrics, and only GET and HEAD', async () => {
  const metrics = new Metrics({ processMetrics: true })
  metrics.datastoreUp(true)
  await using listener = await listenHttp({ ...loopback, routes: metricsRoutes(metrics) })
  const url = `http://127.0.0.1:${listener.port}/metrics`
  const answer = await fetch(url)
  assert.match(answer.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
  const body = await answer.text()
  assert.match(body, /^assay_datastore_up 1$/m)
  assert.match(body, /^process_resident_memory_bytes \d/m)
  assert.equal(await (await fetch(url, { method: 'HEAD' })).text(), '')
  assert.equal((await fetch(url, { method: 'POST', body: 'x' })).status, 405)
})

test('listenHttp() answers 500 when a route throws, without its message', async () => {
  const routes = new Map([
    [
      '/',
      (): never => {
        throw new Error('inside')
      },
    ],
  ])
  await using listener = await listenHttp({ ...loopback, routes })
  const answer = await fetch(`http://127.0.0.1:${listener.port}/`)
  assert.equal(answer.status, 500)
  assert.doesNotMatch(await answer.text(), /inside/)
})

test('listenHttp() says which address it cannot have', async () => {
  await using first = await listenHttp({ ...loopback, routes: new Map() })
  await assert.rejects(listenHttp({ ...loopback, port: first.port, routes: new Map() }), {
    name: 'AssayError',
    code: 'unavailable',
    message: new RegExp(`^cannot listen on 127\\.0\\.0\\.1 port ${first.port}: .*EADDRINUSE`),
  })
})
