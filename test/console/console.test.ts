import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { WebConsole } from '#console/console.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { nobody, noOtherUser } from '../support/another-user.ts'
import { noChromium, openBrowser } from '../support/browser.ts'
import { ConsoleProcess } from '../support/console-process.ts'
import { endorsementKeyHash, Fleet } from '../support/fleet.ts'
import { Installation } from '../support/installation.ts'
import { idOf, LiveServer } from '../support/live-server.ts'
import { newNode } from '../support/records.ts'

// One browser, one server and one console for all but the last test: a start takes most of the time.
const skip = noChromium
const resources = new AsyncDisposableStack()
let browser: Browser
let live: LiveServer
let fleet: Fleet
let console: ConsoleProcess
let link: string

before(async () => {
  if (skip !== false) return
  browser = await openBrowser()
  resources.defer(() => browser.close())
  live = resources.use(
    await LiveServer.start({
      settings: `ratelimit: { attestation: false }
administrators:
  - { spiffe_id: spiffe://example.org/narrow, calls: [read], spiffe_id_prefixes: [spiffe://example.org/spire/agent] }
  - { spiffe_id: spiffe://example.org/inventory-only, calls: [inventory] }`,
    }),
  )
  fleet = resources.use(new Fleet(live))
  console = resources.use(
    new ConsoleProcess(['--socket-path', join(live.directory, 'server.sock')]),
  )
  link = await console.nextLink()
})
after(() => resources.disposeAsync())

/** A page that has opened a link, in a browser profile of its own. What it asks for and complains of is kept. */
async function openPage(options: BrowserContextOptions = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  const requested: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => requested.push(request.url()))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  await page.goto(link)
  await page.getByText('connected', { exact: true }).waitFor()
  link = await console.nextLink()
  return { page, requested, complaints, [Symbol.asyncDispose]: () => context.close() }
}

/** The figure under a label of the first row. */
const figure = (page: Page, label: string) =>
  page.locator('.tile', { hasText: label }).locator('.figure')

/** Waits until the figure is what it should be, and says what it was otherwise. */
async function waitForFigure(page: Page, label: string, value: string): Promise<void> {
  await figure(page, label)
    .getByText(value, { exact: true })
    .waitFor({ timeout: 10_000 })
    .catch(async () => assert.equal(await figure(page, label).textContent(), value))
}

test('it says what to do when there is nothing yet', { skip }, async () => {
  await using opened = await openPage()
  const { page } = opened
  await page.getByText('No node has attested yet.').waitFor()
  await page.getByText('No attestation was refused since the server started.').waitFor()
  assert.match(await page.title(), /example\.org/)
  assert.equal(await page.locator('#checks .check.ok').count(), 4)
})

test('it changes as nodes attest, go, are banned, and as TPMs knock', { skip }, async () => {
  await using opened = await openPage()
  const { page } = opened
  const id = await fleet.join({ name: 'n001' })
  await waitForFigure(page, 'Live nodes', '1')
  await fleet.know('n002', 'pending')
  await waitForFigure(page, 'Pending approval', '1')
  await page.getByRole('button', { name: /Pending approval/ }).waitFor()
  await fleet.join({ name: 'n003', isSlow: true })
  await waitForFigure(page, 'Lacking the bundle', '1')
  await live.local.client(AgentDefinition).banAgent({ id: idOf(id) })
  await page.getByRole('button', { name: /Banned 1/ }).waitFor()
  assert.equal(await figure(page, 'SVIDs issued').textContent(), '2')
})

test('it tells of a refusal as it happens, with its remedy', { skip }, async () => {
  await using opened = await openPage()
  const { page } = opened
  await assert.rejects(live.attestWith('<img src=x onerror=alert(1)>'))
  const refusal = page.locator('.refusal')
  await refusal
    .getByText('join-token-malformed')
    .or(refusal.getByText('join-token-unknown'))
    .first()
    .waitFor()
  await refusal.getByText('assay token generate').first().waitFor()
  assert.equal(await page.locator('.refusal img').count(), 0, 'what a stranger wrote is text')
})

test('it shows a rotation while it waits, and the authorities before and after', {
  skip,
}, async () => {
  await using opened = await openPage()
  const { page } = opened
  await fleet.join({ name: 'slow', isSlow: true })
  const active = page
    .locator('.authority', { hasText: 'X.509' })
    .locator('.badge', { hasText: 'active' })
  await active.waitFor()
  const stop = new AbortController()
  const steps = live.local.client(KeysDefinition).rotate({ kind: 'x509' }, { signal: stop.signal })
  const watched = (async () => {
    for await (const { step } of steps) if (step === 'propagating') return
  })()
  await watched
  await page.locator('.rotation', { hasText: 'X.509 authority is being rotated' }).waitFor()
  await page.locator('.rotation progress').waitFor()
  await page.locator('.badge', { hasText: 'prepared' }).waitFor()
  stop.abort(new Error('enough seen'))
  for await (const { step } of live.local
    .client(KeysDefinition)
    .rotate({ kind: 'x509', force: true })) {
    if (step === 'done') break
  }
  await page.locator('.badge', { hasText: 'old' }).waitFor()
  assert.equal(await page.locator('.rotation').count(), 0)
  const { old } = await live.local.client(LocalAuthorityDefinition).getX509AuthorityState({})
  await live.local
    .client(LocalAuthorityDefinition)
    .taintX509Authority({ authorityId: old?.authorityId ?? '' })
  await page.locator('.badge', { hasText: 'tainted' }).waitFor()
})

test('all of it can be done by keyboard', { skip }, async () => {
  await fleet.know('alpha', 'pending')
  await fleet.know('beta', 'pending')
  await using opened = await openPage({ reducedMotion: 'reduce' })
  const { page } = opened
  // One of an earlier test may be there before the two.
  await page.getByRole('button', { name: /Pending approval [23]/ }).waitFor()
  const focused = () =>
    page.locator(':focus').evaluate((one) => {
      const { outlineStyle, outlineWidth } = one.ownerDocument.defaultView.getComputedStyle(one)
      return {
        tag: `${one.tagName}`,
        text: `${one.id || one.textContent.trim()}`,
        isOutlined: outlineStyle !== 'none' && outlineWidth !== '0px',
      }
    })
  await page.keyboard.press('Tab')
  assert.match((await focused()).text, /Skip to the nodes/)
  await page.keyboard.press('Enter')
  const seen: string[] = []
  for (let last = ''; last !== 'CANVAS' && seen.length < 20; ) {
    await page.keyboard.press('Tab')
    const { tag, text, isOutlined } = await focused()
    // Of the choice between map and table the label beside it is outlined.
    assert.ok(isOutlined || tag === 'INPUT', `${tag} ${text} has no outline`)
    seen.push(text === '' ? tag : text)
    last = tag
  }
  assert.equal(seen[0], 'filter', 'the filter is the first of the nodes')
  assert.equal(seen.at(-1), 'CANVAS', seen.join())
  await page.locator('#tip', { hasText: 'alpha, pending approval' }).waitFor()
  await page.keyboard.press('ArrowRight')
  assert.match((await page.locator('#spoken').textContent()) ?? '', /beta, pending approval/)
  await page.keyboard.press('Enter')
  const dialog = page.getByRole('dialog', { name: 'beta' })
  await dialog
    .getByText(`assay inventory approve ${endorsementKeyHash('beta').slice(0, 8)}`)
    .waitFor()
  await page.keyboard.press('Escape')
  await dialog.waitFor({ state: 'hidden' })
  assert.equal((await focused()).tag, 'CANVAS', 'the focus is back')
})

test('a table has what the map has, by the filter, and more of each node', { skip }, async () => {
  const id = await fleet.join({ name: 'gamma', agentVersion: '7.7.7' })
  await using opened = await openPage()
  const { page } = opened
  await page.getByText('Table', { exact: true }).click()
  await page.getByLabel('Filter').fill('gamma 7.7')
  await page.getByRole('button', { name: 'gamma' }).click()
  const dialog = page.getByRole('dialog', { name: 'gamma' })
  await dialog.getByText(id).waitFor()
  await dialog.getByText('Serial number').waitFor()
  await page.keyboard.press('Escape')
  await page.getByLabel('Filter').fill('no such node')
  await page.getByText('No node is like that.').waitFor()
})

test('it is dark for those who want it dark, and fits narrow and wide screens', {
  skip,
}, async () => {
  for (const [colorScheme, width] of [
    ['light', 360],
    ['dark', 2560],
  ] as const) {
    await using opened = await openPage({ colorScheme, viewport: { width, height: 900 } })
    const { page } = opened
    const { ground, overflow } = await page.locator('html').evaluate((html) => {
      const { defaultView: view } = html.ownerDocument
      return {
        ground: `${view.getComputedStyle(html).backgroundColor}`,
        overflow: html.scrollWidth - view.innerWidth,
      }
    })
    const [red = 0] = [...ground.matchAll(/\d+/g)].map(Number)
    assert.equal(red > 128, colorScheme === 'light', ground)
    assert.ok(overflow <= 0, `${width}: ${overflow} pixels stand out`)
  }
})

test('nothing it does leaves the loopback, or breaks its policy; nobody else gets in', {
  skip,
}, async () => {
  await using opened = await openPage()
  const { page, requested, complaints } = opened
  await page.locator('.chart canvas').first().waitFor()
  const { origin } = new URL(page.url())
  assert.match(origin, /^http:\/\/127\.0\.0\.1:\d+$/)
  assert.deepEqual(
    requested.filter((url) => !url.startsWith(`${origin}/`)),
    [],
  )
  assert.equal(complaints.join(), '')
  assert.equal(new URL(page.url()).hash, '', 'the link is not in the address any more')
  assert.deepEqual(await page.context().cookies(), [])

  const refused = await page.locator('head').evaluate(async (head) => {
    const script = head.ownerDocument.createElement('script')
    try {
      script.src = '/main.js'
      return 'a script was added'
    } catch {
      // Not even its own, once it runs.
    }
    return await fetch('http://127.0.0.1:9/').then(
      () => 'fetched',
      () => 'refused',
    )
  })
  assert.equal(refused, 'refused')
  assert.ok(
    complaints.some((text) => text.includes('Content Security Policy')),
    complaints.join(),
  )

  // Another user's page on another port of the same address gets neither cookie nor answer.
  const theirs = createServer((_request, response) => {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><title>theirs</title>')
  })
  theirs.listen(0, '127.0.0.1')
  await once(theirs, 'listening')
  const other = await page.context().newPage()
  await other.goto(`http://127.0.0.1:${(theirs.address() as AddressInfo).port}/`)
  const got = await other.evaluate(async (url) => {
    return await fetch(`${url}/events`).then(
      (response) => response.text(),
      () => 'refused',
    )
  }, origin)
  assert.equal(got, 'refused')
  theirs.closeAllConnections()
  theirs.close()

  // A tab without a key: what another local user would see.
  const stranger = await browser.newPage()
  await stranger.goto(origin)
  await stranger.getByText('This tab may not look.').waitFor()
  assert.equal(await stranger.locator('.tile', { hasText: 'SVIDs issued' }).count(), 0)
  await stranger.close()
})

test('whoever may not read something is told so, and never that there is nothing', {
  skip,
}, async () => {
  await fleet.join({ name: 'delta' })
  for (const [path, shown] of [
    ['/narrow', '–'],
    ['/inventory-only', '–'],
  ] as const) {
    const stop = new AbortController()
    await using web = await WebConsole.open({
      connection: live.connect(await live.mint(path)),
      listenAt: { kind: 'loopback', port: 0 },
      onLinkUsed: () => {},
      clock: new SystemClock(),
      random: new SystemRandom(),
    })
    const running = web.run(stop.signal).catch(() => {})
    using _stop = { [Symbol.dispose]: () => stop.abort(new Error('the test is over')) }
    const page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${web.port}/#${web.newLink()}`)
    await page.locator('.check.unknown', { hasText: 'not shown' }).first().waitFor()
    if (path === '/narrow') {
      await page.getByText('not shown', { exact: true }).first().waitFor()
      await waitForFigure(page, 'Pending approval', shown)
      assert.notEqual(await figure(page, 'Live nodes').textContent(), '–')
    } else {
      await page.locator('#no-node', { hasText: 'authorization denied' }).waitFor()
      await waitForFigure(page, 'Live nodes', shown)
    }
    for (const text of ['No node has attested yet', 'No attestation was refused']) {
      assert.equal(await page.getByText(text).isVisible(), false, text)
    }
    await page.close()
    stop.abort(new Error('enough seen'))
    await running
  }
})

test('another local user gets the page and nothing on it', {
  skip: skip || noOtherUser,
}, async () => {
  const { origin } = new URL(link)
  const script = `
    const answers = []
    for (const path of ['/', '/events', '/node?id=spiffe://example.org/a'])
      answers.push((await fetch(${JSON.stringify(origin)} + path)).status)
    process.stdout.write(JSON.stringify(answers))`
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    ...nobody,
    encoding: 'utf8',
  })
  assert.deepEqual(JSON.parse(stdout), [200, 401, 401])
})

test('10,000 nodes are drawn at once', { skip }, async () => {
  const expiresAtSeconds = Math.floor(live.clock.now().epochMilliseconds / 1000) + 3600
  const writes: Promise<void>[] = []
  for (let index = 0; index < 10_000; index++) {
    const name = `m${String(index).padStart(5, '0')}`
    writes.push(live.datastore.putNode(newNode(name, { expiresAtSeconds })))
  }
  await Promise.all(writes)
  await using opened = await openPage()
  const { page } = opened
  await page
    .getByText(/^10,0\d\d$/)
    .first()
    .waitFor()
  const map = page.locator('.group canvas[tabindex]').last()
  await map.waitFor()
  const milliseconds = await page.locator('#filter').evaluate(async (filter) => {
    const view = filter.ownerDocument.defaultView
    const start = view.performance.now()
    filter.value = 'm'
    filter.dispatchEvent(new Event('input'))
    await new Promise((resolve) => view.requestAnimationFrame(resolve))
    return view.performance.now() - start
  })
  assert.ok(milliseconds < 1000, `${milliseconds} ms to filter and draw`)
})

test('a real node, from its first knock; and a server that goes and comes back', {
  skip,
}, async () => {
  await using installation = new Installation()
  const fingerprint = await installation.startTpm()
  const server = await installation.startServer('disk', 'agent_ttl: 1h')
  await using own = new ConsoleProcess(installation.atServer())
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(await own.nextLink())
  const agent = installation.startAgent()
  // What fails first is to be told of.
  agent.catch(() => {})
  await page.locator('.refusal').getByText('endorsement-key-pending').first().waitFor()
  await page.locator('.refusal').getByText('assay inventory approve').first().waitFor()
  await waitForFigure(page, 'Pending approval', '1')
  await installation.allowTpm(fingerprint, 'n001')
  await agent
  await waitForFigure(page, 'Live nodes', '1')
  await page.getByText('Table', { exact: true }).click()
  await page.getByRole('button', { name: 'n001' }).waitFor({ timeout: 40_000 })

  await server.kill()
  await page.getByText(/The server is not connected/).waitFor()
  assert.equal(await page.locator('#connection').textContent(), 'not connected')
  await installation.startServerAgain()
  await page.getByText('connected', { exact: true }).waitFor()
  assert.equal(await page.locator('#banner').isVisible(), false)
  assert.equal(await own.stop(), 143)
  await page.getByText(/The console has ended/).waitFor()
  await context.close()
})
