// Unmodified SPIFFE libraries in other languages against a real agent and server.
import assert from 'node:assert/strict'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { Installation } from '../support/installation.ts'
import {
  type Client,
  copyForEveryone,
  expectEvent,
  goClient,
  javaClient,
  pythonClient,
  run,
  uidOf,
} from './clients.ts'

const isRoot = process.getuid?.() === 0
const ownUid = process.getuid?.() ?? 0
const webUid = isRoot ? uidOf('www-data') : ownUid
const ledgerUid = isRoot ? uidOf('backup') : ownUid
const strangerUid = isRoot ? uidOf('games') : ownUid
const needsRoot = isRoot ? false : 'only root can run clients as other users'

const built = goClient()
const python = pythonClient()
const java = javaClient('Workload')
let assay: Installation
let go: Client = built
let nodeId = ''

interface Svid {
  readonly id: string
  readonly serial: string
}

before(async () => {
  assay = new Installation()
  go = copyForEveryone(built, assay.directory)
  await assay.startServer('memory')
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const [node] = (await assay.ask('agent', 'list')) as readonly { id: string }[]
  nodeId = node?.id ?? ''
  await assay.createEntry(nodeId, assay.id('/web'), `unix:uid:${webUid}`)
  if (isRoot) {
    await assay.createEntry(nodeId, assay.id('/ledger'), `unix:uid:${ledgerUid}`)
    await assay.createEntry(nodeId, assay.id('/own'), `unix:uid:${ownUid}`)
  }
})

after(async () => {
  await assay[Symbol.asyncDispose]()
})

const skipGo = built.missing ?? false
const skipPython = python.missing ?? false
const skipJava = java.missing ?? false

test('go-spiffe gets an X.509 context over gRPC (E3)', { skip: skipGo }, async () => {
  const event = await expectEvent(run(go, ['x509', assay.workloadSocket], { uid: webUid }), 'x509')
  assert.deepEqual(
    (event['svids'] as readonly Svid[]).map(({ id }) => id),
    [assay.id('/web')],
  )
  assert.deepEqual(event['roots'], { 'example.org': 1 })
})

test('go-spiffe gets a JWT-SVID and validates it, and the agent refuses the wrong audience', {
  skip: skipGo,
}, async () => {
  const event = await expectEvent(
    run(go, ['jwt', assay.workloadSocket, 'payments'], { uid: webUid }),
    'jwt',
  )
  assert.equal(event['id'], assay.id('/web'))
  assert.equal(event['remote'], assay.id('/web'))
  assert.deepEqual(event['audience'], ['payments'])
  assert.equal(event['wrongAudience'], 'InvalidArgument')
})

test('two go-spiffe workloads talk mutual TLS, and each refuses a third', {
  skip: skipGo || needsRoot,
}, async () => {
  const stop = new AbortController()
  const server = run(go, ['serve', assay.workloadSocket, assay.id('/web')], {
    uid: ledgerUid,
    signal: stop.signal,
  })
  const address = String((await expectEvent(server, 'listening'))['address'])
  const caller = run(go, ['call', assay.workloadSocket, address, assay.id('/ledger')], {
    uid: webUid,
  })
  assert.equal((await expectEvent(caller, 'greeted'))['text'], 'hello\n')
  assert.equal((await expectEvent(server, 'peer'))['id'], assay.id('/web'))
  const wrongServer = run(go, ['call', assay.workloadSocket, address, assay.id('/other')], {
    uid: webUid,
  })
  await assert.rejects(expectEvent(wrongServer, 'greeted'), /unexpected ID/)
  const wrongCaller = run(go, ['call', assay.workloadSocket, address, assay.id('/ledger')], {
    uid: ledgerUid,
  })
  await assert.rejects(expectEvent(wrongCaller, 'greeted'), /the client failed/)
  stop.abort()
})

test('go-spiffe is refused where there is no entry, and served once there is one', {
  skip: skipGo || needsRoot,
}, async () => {
  const stop = new AbortController()
  const watching = run(go, ['watch', assay.workloadSocket, '1'], {
    uid: strangerUid,
    signal: stop.signal,
  })
  assert.equal((await expectEvent(watching, 'watch-error'))['code'], 'PermissionDenied')
  await assay.createEntry(nodeId, assay.id('/stranger'), `unix:uid:${strangerUid}`)
  const event = await expectEvent(watching, 'x509')
  assert.equal((event['svids'] as readonly Svid[])[0]?.id, assay.id('/stranger'))
  stop.abort()
})

for (const [name, client, uid, skip] of [
  ['go-spiffe', (): Client => go, webUid, skipGo],
  ['py-spiffe', (): Client => python, ownUid, skipPython],
] as const) {
  test(`${name} is told of every rotation`, { skip }, async () => {
    const stop = new AbortController()
    const watching = run(client(), ['watch', assay.workloadSocket, '9'], {
      uid,
      signal: stop.signal,
    })
    await expectEvent(watching, 'x509')
    const path = `/short/${name}`
    const entry = await assay.createEntry(
      nodeId,
      assay.id(path),
      `unix:uid:${uid}`,
      '--x509-svid-ttl',
      '10s',
    )
    const serials = new Set<string>()
    while (serials.size < 2) {
      const { svids } = (await expectEvent(watching, 'x509')) as unknown as {
        svids: readonly Svid[]
      }
      const short = svids.find(({ id }) => id === assay.id(path))
      if (short !== undefined) serials.add(short.serial)
    }
    await assay.ask('entry', 'delete', '--entry-id', entry)
    stop.abort()
  })
}

for (const [name, client, skip] of [
  ['py-spiffe', python, skipPython],
  ['java-spiffe', java, skipJava],
] as const) {
  test(`${name} gets an X.509 source`, { skip }, async () => {
    const event = await expectEvent(run(client, ['x509', assay.workloadSocket]), 'x509')
    assert.equal(
      (event['svids'] as readonly Svid[])[0]?.id,
      isRoot ? assay.id('/own') : assay.id('/web'),
    )
  })

  test(`${name} gets a JWT-SVID, which the agent validates`, { skip }, async () => {
    const event = await expectEvent(run(client, ['jwt', assay.workloadSocket, 'payments']), 'jwt')
    assert.deepEqual(event['audience'], ['payments'])
    assert.equal(event['id'], event['remote'])
  })
}
