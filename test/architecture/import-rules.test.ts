import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'

interface Violation {
  readonly from: string
  readonly rule: { readonly name: string }
}

const root = new URL('../..', import.meta.url).pathname

/** Every violation under `directory`/src, and how many modules were read to find them. */
async function cruise(
  directory: string,
): Promise<{ modules: number; violations: readonly Violation[] }> {
  const stdout = await new Promise<string>((resolve) => {
    execFile(
      process.execPath,
      [
        `${root}node_modules/dependency-cruiser/bin/dependency-cruise.mjs`,
        ...['--config', `${root}dependency-cruiser.mjs`, '--output-type', 'json', 'src'],
      ],
      { cwd: directory, maxBuffer: 2 ** 26 },
      (_error, text) => resolve(text),
    )
  })
  const { summary } = JSON.parse(stdout)
  return { modules: summary.totalCruised, violations: summary.violations }
}

test('the import rules hold over src', async () => {
  const { modules, violations } = await cruise(root)
  assert.ok(modules > 20, `only ${modules} modules were read: the checker has gone blind`)
  assert.deepEqual(
    violations.map(({ from, rule }) => `${rule.name}: ${from}`),
    [],
  )
})

// The control: a checker that stopped reading .ts files would pass the test above.
test('the import rules catch each way to break them', async () => {
  const { violations } = await cruise(`${root}test/architecture/fixture`)
  const broken = new Set(violations.map(({ rule }) => rule.name))
  const expected = [
    'base-layer',
    'cli-speaks-the-api',
    'cross-components-with-#',
    'door-databases',
    'door-grpc',
    'door-native',
    'door-pkcs11',
    'fakes-only-in-tests',
    'halves-never-meet',
    'hsm-behind-key-manager',
    'implementations-only-from-built-ins',
    'mains-are-roots',
    'no-cycles',
    'plugins-are-islands',
    'pure-does-no-io',
    'server-never-opens-a-tpm',
    'source-never-imports-tests',
    'spiffe-layer',
    'sql-behind-datastore',
    'wire-types-stay-at-the-edge',
  ]
  assert.deepEqual([...broken].sort(), expected)
})
