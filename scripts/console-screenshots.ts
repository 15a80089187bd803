// Makes the pictures of docs/console.md: a server, a fleet of a thousand nodes that are as nodes can be, and the console
// in Chromium. usage: scripts/node scripts/console-screenshots.ts [DIRECTORY]
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { type Clock, SystemClock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { SystemRandom } from '#base/random.ts'
import { WebConsole } from '#console/console.ts'
import { connectUnix } from '#rpc/client.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { openBrowser } from '../test/support/browser.ts'
import { Fleet } from '../test/support/fleet.ts'
import { LiveServer, trustDomain } from '../test/support/live-server.ts'
import { agentId } from '../test/support/records.ts'

const directory = process.argv[2] ?? join(import.meta.dirname, '../docs/images')
mkdirSync(directory, { recursive: true })

/** The machine's clock, as far back as it is told: what takes an hour is done in less. */
class LateClock implements Clock {
  readonly #system = new SystemClock()
  lateSeconds = 0

  now = (): Temporal.Instant => this.#system.now().subtract({ seconds: this.lateSeconds })
  sleep = (duration: Temporal.Duration, signal: AbortSignal): Promise<void> =>
    this.#system.sleep(duration, signal)
}

const clock = new LateClock()
clock.lateSeconds = 9 * 3600
await using live = await LiveServer.start({
  clock,
  settings: `ratelimit: { attestation: false }
default_x509_svid_ttl: 12h
agent_ttl: 12h
ca_ttl: 36h
max_connections: 4096`,
})
await using fleet = new Fleet(live)
const nowSeconds = (): number => Math.floor(clock.now().epochMilliseconds / 1000)
const name = (index: number): string => `n${String(index).padStart(4, '0')}`

for (let entry = 0; entry < 128; entry++) {
  await live.createEntry({ parent: agentId('a'), path: `/service-${entry}` })
}
await live.local.client(AgentDefinition).createJoinToken({ ttl: 600, token: 'late' })
// Eight hours that nobody sees, with nodes that are away by now.
let index = 0
for (; index < 30; index++) {
  const expiresAtSeconds = nowSeconds() + (index < 21 ? 12 : 5) * 3600
  await fleet.know(name(index), 'allowed')
  await fleet.record({ name: name(index), serialNumber: '1', expiresAtSeconds })
}
clock.lateSeconds = 3600
for (let minute = 0; minute < 60; minute++) {
  clock.lateSeconds -= 60
  const joining = minute % 20 < 4 ? 60 : 8
  for (let one = 0; one < joining; one++) {
    index += 1
    const isSlow = index % 211 === 0
    await fleet.join({
      name: name(index),
      isSlow,
      agentVersion: index % 3 === 0 ? '0.1.0' : '0.1.1',
    })
  }
  for (let one = 0; one < joining / 3; one++) {
    await live.mint(`/web-${one}`)
    await live.local.client(SVIDDefinition).mintJWTSVID({
      id: { trustDomain, path: '/web' },
      audience: ['db'],
      ttl: 3600 + 97 * one,
    })
  }
}
for (let more = 0; more < 12; more++) await fleet.know(name(5000 + more), 'allowed')
for (let more = 0; more < 5; more++) await fleet.know(name(6000 + more), 'pending')
await fleet.know(name(7000), 'denied')
for (const banned of [7001, 7002]) {
  await fleet.know(name(banned), 'banned')
  await fleet.record({
    name: name(banned),
    serialNumber: '',
    expiresAtSeconds: nowSeconds() + 3600,
  })
}
for (const token of ['used-before', 'used-before', 'late', '']) {
  await live.attestWith(token).catch((error: unknown) => {
    if (!(error instanceof AssayError)) throw error
  })
}

// A rotation that waits for the nodes that are slow, while somebody watches it.
const stop = new AbortController()
const rotating = (async () => {
  const steps = live.local.client(KeysDefinition).rotate({ kind: 'x509' }, { signal: stop.signal })
  for await (const { step } of steps) if (step === 'done') return
})().catch(() => {})

using connection = connectUnix(join(live.directory, 'server.sock'), { clock })
await using web = await WebConsole.open({
  connection,
  listenAt: { kind: 'loopback', port: 0 },
  onLinkUsed: () => {},
  clock,
  random: new SystemRandom(),
})
const running = web.run(stop.signal).catch(() => {})
const browser = await openBrowser()
const views = [
  { file: 'console-light.png', colorScheme: 'light', width: 1440, height: 1180 },
  { file: 'console-dark.png', colorScheme: 'dark', width: 1440, height: 1180 },
] as const
for (const { file, colorScheme, width, height } of views) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height } })
  const page = await context.newPage()
  await page.goto(`http://127.0.0.1:${web.port}/#${web.newLink()}`)
  await page.getByText('connected', { exact: true }).waitFor()
  await page.locator('.rotation').waitFor()
  await page.locator('.group canvas').first().waitFor()
  await page.waitForTimeout(2500)
  await page.screenshot({ path: join(directory, file), fullPage: true })
  console.log(join(directory, file))
  await context.close()
}
await browser.close()
stop.abort(new Error('done'))
await Promise.all([rotating, running])
