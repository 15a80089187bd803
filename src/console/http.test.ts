import assert from 'node:assert/strict'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { type IncomingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import { loadAssets } from './assets.ts'
import { type ListenAt, listenHttp } from './http.ts'
import { Sessions } from './sessions.ts'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A request as anybody may send it, also one that no browser would. */
const ask = (
  at: { readonly port?: number | undefined; readonly socketPath?: string },
  path: string,
  options: {
    readonly method?: string
    readonly headers?: Readonly<Record<string, string>>
    readonly body?: string
  } = {},
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const { method = 'GET', headers = {}, body = '' } = options
    const sent = request({ ...at, host: '127.0.0.1', path, method, headers }, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => {
        text += chunk
      })
      answer.once('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }),
      )
    })
    sent.once('error', reject)
    sent.end(body)
  })

async function open(at: ListenAt = { kind: 'loopback', port: 0 }) {
  const sessions = new Sessions(new SystemRandom())
  const used: string[] = []
  const listener = await listenHttp(at, {
    assets: loadAssets(),
    sessions,
    async *view() {
      yield [{ topic: 'keys', data: { data: 'secret of the server' } }]
    },
    details: async (id) => {
      if (!id.startsWith('spiffe://')) throw new SyntaxError('it is no SPIFFE ID')
      return { id }
    },
    onRedeemed: () => used.push('used'),
  })
  return {
    sessions,
    used,
    listener,
    port: listener.port,
    [Symbol.asyncDispose]: () => listener[Symbol.asyncDispose](),
  }
}

test('the page is served with a policy that reaches nobody else, and never a cookie', async () => {
  await using console = await open()
  for (const path of ['/', '/main.js', '/console.css', '/uplot/uPlot.esm.js', '/nothing']) {
    const { status, headers } = await ask(console, path)
    assert.equal(status, path === '/nothing' ? 404 : 200, path)
    const policy = headers['content-security-policy']
    assert.ok(typeof policy === 'string')
    assert.match(
      policy,
      /default-src 'none'.*script-src 'self'.*connect-src 'self'.*frame-ancestors 'none'/,
    )
    assert.doesNotMatch(policy, /unsafe|http|\*/)
    assert.equal(headers['set-cookie'], undefined)
    assert.equal(headers['x-content-type-options'], 'nosniff')
    assert.equal(headers['cache-control'], 'no-store')
  }
})

test('nothing is shown without a key', async () => {
  await using console = await open()
  for (const path of ['/events', '/node?id=spiffe://example.org/a']) {
    for (const authorization of [
      '',
      'Bearer ',
      'Bearer x',
      `Basic ${console.sessions.newLink()}`,
    ]) {
      const { status, body } = await ask(console, path, {
        headers: authorization === '' ? {} : { authorization },
      })
      assert.equal(status, 401, `${path} ${authorization}`)
      assert.doesNotMatch(body, /secret/)
    }
    const token = console.sessions.newLink()
    const asKey = await ask(console, path, { headers: { authorization: `Bearer ${token}` } })
    assert.equal(asKey.status, 401, 'a link is no key')
  }
})

test('a link gives a key once, and the key shows what there is', async () => {
  await using console = await open()
  const token = console.sessions.newLink()
  const answer = await ask(console, '/session', { method: 'POST', body: token })
  assert.equal(answer.status, 200)
  assert.deepEqual(console.used, ['used'])
  const { key } = JSON.parse(answer.body)
  const headers = { authorization: `Bearer ${key}` }
  const events = await ask(console, '/events', { headers })
  assert.equal(events.body, 'event: keys\ndata: {"data":"secret of the server"}\n\n')
  const node = await ask(console, '/node?id=spiffe://example.org/a', { headers })
  assert.deepEqual(JSON.parse(node.body), { id: 'spiffe://example.org/a' })
  assert.equal((await ask(console, '/node?id=a', { headers })).status, 400)
  const again = await ask(console, '/session', { method: 'POST', body: token })
  assert.equal(again.status, 403)
  assert.deepEqual(console.used, ['used'])
})

test('a name that is not of this machine is refused, whatever it resolves to', async () => {
  await using console = await open()
  const key = console.sessions.redeem(console.sessions.newLink())
  const headers = { authorization: `Bearer ${key}` }
  for (const host of [
    'evil.example',
    `evil.example:${console.port}`,
    '127.0.0.1.evil.example',
    'localhost.',
  ]) {
    for (const path of ['/', '/events']) {
      assert.equal((await ask(console, path, { headers: { ...headers, host } })).status, 421, host)
    }
  }
  for (const host of ['127.0.0.1', 'localhost:7780', '[::1]:7780']) {
    assert.equal((await ask(console, '/events', { headers: { ...headers, host } })).status, 200)
  }
})

test('scripts of other pages are refused, and so is what no page sends', async () => {
  await using console = await open()
  const key = console.sessions.redeem(console.sessions.newLink())
  const authorization = `Bearer ${key}`
  for (const headers of [
    { origin: 'http://evil.example' },
    { origin: `http://127.0.0.1:1` },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ] as const) {
    const { status } = await ask(console, '/events', { headers: { authorization, ...headers } })
    assert.equal(status, 403, JSON.stringify(headers))
    const token = console.sessions.newLink()
    const session = await ask(console, '/session', { method: 'POST', headers, body: token })
    assert.equal(session.status, 403)
    assert.ok(console.sessions.redeem(token) !== undefined, 'and uses no link up')
  }
  for (const [method, path] of [
    ['POST', '/'],
    ['POST', '/events'],
    ['DELETE', '/node'],
    ['GET', '/session'],
  ] as const) {
    assert.equal((await ask(console, path, { method, headers: { authorization } })).status, 405)
  }
  const long = await ask(console, '/session', { method: 'POST', body: 'x'.repeat(5000) })
  assert.equal(long.status, 413)
})

test('on a Unix socket it is for its user alone', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'assay-console-'))
  try {
    const path = join(directory, 'console.sock')
    await using console = await open({ kind: 'unix', path })
    assert.equal(console.port, undefined)
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.equal((await ask({ socketPath: path }, '/')).status, 200)
    await assert.rejects(open({ kind: 'unix', path }), { code: 'unavailable' })
  } finally {
    await rm(directory, { recursive: true })
  }
})
