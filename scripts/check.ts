// The gate: runs each part, prints what failed, and ends with the line `N passed, N failed`.
import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import process from 'node:process'
import { parseArgs } from 'node:util'

interface Outcome {
  passed: number
  failed: number
  readonly skipped: string[]
}

interface Part {
  readonly name: string
  run(): Promise<Outcome>
}

/** No part takes a tenth of this on two quiet cores. */
const maxPartMs = 15 * 60_000

const root = new URL('..', import.meta.url).pathname
const bin = (name: string): string => `${root}node_modules/.bin/${name}`

// The tools' own `#!/usr/bin/env node` must find the pinned Node.
const environment = {
  ...process.env,
  PATH: `${process.execPath.replace(/\/node$/, '')}:${process.env['PATH']}`,
  NO_COLOR: '1',
}

async function output(
  command: string,
  args: readonly string[],
): Promise<{ status: number; text: string }> {
  const child = spawn(command, args, {
    cwd: root,
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const chunks: Uint8Array[] = []
  // A test file that never ends must not keep the rest from being judged.
  const guard = setTimeout(() => child.kill('SIGTERM'), maxPartMs)
  child.stdout.on('data', (chunk: Uint8Array) => chunks.push(chunk))
  child.stderr.on('data', (chunk: Uint8Array) => chunks.push(chunk))
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 1))
  })
  clearTimeout(guard)
  return { status, text: chunks.map((chunk) => new TextDecoder().decode(chunk)).join('') }
}

/** A part that is one command: it passes when the command exits with 0. */
function command(name: string, program: string, ...args: readonly string[]): Part {
  return {
    name,
    async run() {
      const { status, text } = await output(program, args)
      if (status !== 0) process.stdout.write(`\n${text}\n`)
      return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: [] }
    },
  }
}

/** TypeScript over several projects: what runs in a browser knows other things than the rest. */
function types(...projects: readonly string[]): Part {
  const each = projects.map((project) => command('types', bin('tsc'), '--project', project))
  return {
    name: 'types',
    async run() {
      const outcome: Outcome = { passed: 0, failed: 0, skipped: [] }
      for (const part of each) {
        const { passed, failed } = await part.run()
        outcome.passed += passed
        outcome.failed += failed
      }
      return outcome
    },
  }
}

/** A part that is test files. None found is a failure: a gate that sees nothing must not pass. */
function tests(name: string, patterns: readonly string[], concurrency = 2): Part {
  return {
    name,
    async run() {
      const outcome: Outcome = { passed: 0, failed: 0, skipped: [] }
      const files = patterns.flatMap((pattern) => globSync(pattern, { cwd: root })).sort()
      const reporter = `${root}scripts/check-reporter.ts`
      const { status, text } = await output(process.execPath, [
        '--test',
        `--test-concurrency=${concurrency}`,
        '--test-timeout=300000',
        `--test-reporter=${reporter}`,
        '--test-reporter-destination=stdout',
        ...files,
      ])
      for (const line of text.split('\n')) {
        if (!line.startsWith('{"outcome"')) continue
        const { outcome: result, name: title, file, why } = JSON.parse(line)
        const place = file.replace(root, '')
        if (result === 'passed') outcome.passed++
        else if (result === 'skipped') outcome.skipped.push(`${title}: ${why}`)
        else {
          outcome.failed++
          process.stdout.write(`\n  FAILED ${place}: ${title}\n${why.replace(/^/gm, '    ')}\n`)
        }
      }
      if (files.length === 0 || (status !== 0 && outcome.failed === 0)) {
        outcome.failed++
        process.stdout.write(
          `\n${files.length === 0 ? `no test file matches ${patterns.join(' ')}` : text}\n`,
        )
      }
      return outcome
    },
  }
}

const parts: readonly Part[] = [
  types('.', 'src/console/ui'),
  command('lint', bin('biome'), 'check', '--diagnostic-level=error', '--max-diagnostics=50'),
  command('generated', `${root}scripts/generate`, '--check'),
  tests('architecture', ['test/architecture/*.test.ts']),
  tests('unit', ['src/**/*.test.ts', 'packages/**/*.test.ts']),
  tests('contract', ['test/contract/**/*.test.ts']),
  tests('documents', ['test/documents/**/*.test.ts']),
  tests('swtpm', ['test/swtpm/**/*.test.ts']),
  tests('softhsm', ['test/softhsm/**/*.test.ts']),
  tests('fault', ['test/fault/**/*.test.ts'], 1),
  tests('e2e', ['test/e2e/**/*.test.ts'], 1),
  tests('console', ['test/console/*.test.ts'], 1),
  tests('conformance', ['test/conformance/**/*.test.ts'], 1),
  tests('packaging', ['test/packaging/**/*.test.ts'], 1),
]

const { positionals } = parseArgs({ allowPositionals: true, strict: false, options: {} })
const stray = process.argv.slice(2).find((argument) => argument.startsWith('-'))
if (stray !== undefined) {
  console.error(`check: unknown option ${stray}; see ./check --help`)
  process.exit(2)
}
const unknown = positionals.filter((name) => !parts.some((part) => part.name === name))
if (unknown.length > 0) {
  console.error(
    `check: no part '${unknown.join("', '")}'; there are ${parts.map((part) => part.name).join(', ')}`,
  )
  process.exit(2)
}
const selected =
  positionals.length === 0 ? parts : parts.filter((part) => positionals.includes(part.name))

const total: Outcome = { passed: 0, failed: 0, skipped: [] }
const rows: string[] = []
for (const part of selected) {
  process.stdout.write(`${part.name} … `)
  const start = performance.now()
  const { passed, failed, skipped } = await part.run()
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  const row = `${part.name.padEnd(13)}${String(passed).padStart(5)} passed ${String(failed).padStart(3)} failed ${String(skipped.length).padStart(3)} skipped ${seconds.padStart(7)} s`
  process.stdout.write(`${failed === 0 ? 'ok' : 'FAILED'} (${seconds} s)\n`)
  rows.push(row)
  total.passed += passed
  total.failed += failed
  total.skipped.push(...skipped)
}

console.log(`\n${rows.join('\n')}\n`)
if (total.skipped.length > 0)
  console.log(`skipped:\n${total.skipped.map((line) => `  ${line}`).join('\n')}\n`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed === 0 ? 0 : 1
