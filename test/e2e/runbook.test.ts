// Runs docs/operations/keys.md from top to bottom and compares what one sees with what stands there.
import assert from 'node:assert/strict'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import type { Daemon } from '../support/daemon.ts'
import { type Finished, Installation, output } from '../support/installation.ts'

const page = readFileSync(new URL('../../docs/operations/keys.md', import.meta.url), 'utf8')
const root = new URL('../..', import.meta.url).pathname
const assay = new Installation()
let server: Daemon | undefined

/** A heading, and the commands with their output below it. */
interface Section {
  readonly title: string
  readonly examples: readonly { readonly command: string; readonly shows: readonly string[] }[]
}

const sections: readonly Section[] = page
  .split(/^## /m)
  .slice(1)
  .map((text) => ({
    title: text.split('\n', 1)[0] ?? '',
    examples: [...text.matchAll(/^```console\n\$ (.*)\n([^`]*)```$/gm)].map(
      ([, command = '', shows = '']) => ({ command, shows: lines(shows) }),
    ),
  }))

/** What is different each time gets a name; columns are as wide as what is in them. */
function lines(text: string): string[] {
  return text
    .replaceAll(assay.directory, 'DIR')
    .replace(/\(in [^)]*\)|\([^)]* ago\)/g, '(DISTANCE)')
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, 'TIME')
    .replace(/\d{8}T\d{6}Z/g, 'TIME')
    .replace(/\b[0-9a-f]{40}\b/g, 'KEY-ID')
    .replace(/\b[0-9A-Za-z]{32}\b/g, 'KEY-ID')
    .replace(/\bserial [0-9a-f]{16}\b/g, 'serial SERIAL')
    .replace(/not yet [0-9a-f-]{12}…/g, 'not yet NODE')
    .replace(/\b\d+ [smhd]( \d+ [smh])?\b/g, 'AGE')
    .replace(/ {2,}/g, '  ')
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd())
}

const run = (command: string): Promise<Finished> => {
  const [program, ...args] = command.split(' ')
  assert.equal(program, 'assay')
  return assay.tryAssay(...args, ...assay.atServer())
}

const state = async (): Promise<string> =>
  (JSON.parse((await run('assay hsm status --json')).stdout) as { state: string }).state

async function untilState(wanted: string): Promise<void> {
  await server?.waitUntil(async () => (await state()) === wanted, 15)
}

/** The agent says a moment later that its workloads have a bundle. */
async function untilHeld(): Promise<void> {
  await server?.waitUntil(async () => (await run('assay hsm status')).stdout.includes('by 1 of 1'))
}

/** What happens in the world before the commands of a section are run. */
const happenings: Readonly<Record<string, (example: number) => Promise<void>>> = {
  async 'The HSM is away'(example) {
    const [from, to] = example === 0 ? ['hsm/tokens', 'unplugged'] : ['unplugged', 'hsm/tokens']
    renameSync(assay.at(from), assay.at(to))
    await untilState(example === 0 ? 'down' : 'ok')
  },
  async 'The HSM moved'() {
    await server?.[Symbol.asyncDispose]()
    renameSync(assay.at('hsm/tokens'), assay.at('hsm/elsewhere'))
    const settings = assay.at('hsm/softhsm2.conf')
    const moved = readFileSync(settings, 'utf8').replace('/tokens', '/elsewhere')
    writeFileSync(settings, moved)
    server = await assay.startServerAgain()
  },
  async 'The HSM is lost'(example) {
    if (example > 0) return
    await server?.[Symbol.asyncDispose]()
    await rm(assay.at('hsm'), { recursive: true })
    await output(`${root}scripts/software-hsm`, [assay.at('hsm'), 'assay'])
    server = await assay.startServerAgain()
  },
}

before(async () => {
  await assay.makeToken()
  const settings = 'replacement_spread: 0s\n'
  server = await assay.startServer('pkcs11', settings)
  const { token } = (await assay.ask('token', 'generate')) as { token: string }
  await assay.startAgent(`join_token: { token: ${token} }`)
  const node = assay.id(`/spire/agent/join_token/${token}`)
  await assay.createEntry(node, assay.id('/web'), 'unix:uid:0')
  await server.waitUntil(async () => (await run('assay hsm status')).stdout.includes('2 SVIDs'))
})
after(() => assay[Symbol.asyncDispose]())

test('the runbook has its sections', () => {
  assert.ok(sections.length >= 6)
  for (const name of Object.keys(happenings)) {
    assert.ok(
      sections.some(({ title }) => title === name),
      name,
    )
  }
})

for (const { title, examples } of sections) {
  test(`docs/operations/keys.md: ${title}`, async () => {
    assert.ok(examples.length > 0)
    for (const [i, { command, shows }] of examples.entries()) {
      await happenings[title]?.(i)
      if (command === 'assay hsm status' && title !== 'The HSM is lost') await untilHeld()
      const { stdout, stderr } = await run(command)
      assert.deepEqual(lines(stdout + stderr), shows, command)
    }
  })
}
