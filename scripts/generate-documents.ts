// Makes the documents that say what the code says: configuration, commands, conformance. With --check it changes
// nothing and fails when one of them has fallen behind.
import { globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import process from 'node:process'
import { agentConfigSchema } from '#agent/config.ts'
import { ceremonySchema } from '#ceremony/ceremony-file.ts'
import { allCommands } from '#cli/catalog.ts'
import { commonOptions, type Option } from '#cli/command.ts'
import { exitStatuses } from '#cli/exit-status.ts'
import { detailLines, optionLabel } from '#cli/help.ts'
import { helperConfigSchema } from '#cli/helper/config.ts'
import { jsonSchema, markdownTable } from '#config/reference.ts'
import { serverConfigSchema } from '#server/config.ts'
import { commandManual, daemonManual, signerManual } from './manual.ts'

const root = new URL('..', import.meta.url).pathname
const made = '<!-- Made by scripts/generate; do not edit. -->'

function configuration(): string {
  return `${made}

# Configuration

One YAML file a daemon. Names are SPIRE's wherever the meaning is the same. An unknown key is an error that names
its line; \`bin/assay-server validate --config FILE\` and \`bin/assay-agent validate --config FILE\` check without starting.
Durations are written \`90s\`, \`15m\`, \`24h\` or \`1h30m\`. No secret stands in these files: keys that end in \`_file\` name
where it is. Editors can use [server.schema.json](server.schema.json), [agent.schema.json](agent.schema.json),
[helper.schema.json](helper.schema.json) and [ceremony.schema.json](ceremony.schema.json).

## assay-server

${markdownTable(serverConfigSchema)}

## assay-agent

${markdownTable(agentConfigSchema)}

## assay helper

${markdownTable(helperConfigSchema)}

## assay ceremony

${markdownTable(ceremonySchema)}
`
}

async function commandReference(): Promise<string> {
  const optionRow = (option: Option): string => {
    const { summary, required, multiple } = option
    const traits = [required ? 'required' : '', multiple ? 'may be repeated' : '']
      .filter(Boolean)
      .join(', ')
    return `| \`${optionLabel(option).replaceAll('|', '\\|')}\` | ${summary}${traits === '' ? '' : ` (${traits})`} |`
  }
  const commands = await allCommands()
  const sections = commands.map(({ name, summary, positionals, options, details }) =>
    [
      `## assay ${name}${positionals === undefined ? '' : ` ${positionals}`}`,
      `${summary[0]?.toUpperCase()}${summary.slice(1)}.`,
      ...(details === undefined
        ? []
        : [detailLines(details).join('\n').replace(/^ {2}/gm, '    ')]),
      ...(options.length === 0
        ? []
        : [`| option | meaning |\n| --- | --- |\n${options.map(optionRow).join('\n')}`]),
    ].join('\n\n'),
  )
  return `${made}

# Commands

Every command also has ${commonOptions.map(({ name, summary }) => `\`--${name}\` (${summary})`).join(' and ')}.
SPIRE's spelling of an option (\`-spiffeID\`) is understood. A switch is turned off by \`--name=false\`. With \`--json\`
names are in snake_case, times in RFC 3339, durations in seconds, and what is not set is left out; an error is
\`{"error", "code", "reason"}\` on standard error. A command that is interrupted by signal N exits with 128 + N.

| exit status | meaning |
| --- | --- |
${exitStatuses.map(([status, meaning]) => `| ${status} | ${meaning} |`).join('\n')}

${sections.join('\n\n')}
`
}

/** Files whose tests are titled with a rule's number, by number. */
function testsByRule(): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, Set<string>>()
  for (const file of globSync(['src/**/*.test.ts', 'test/**/*.test.ts'], { cwd: root }).sort()) {
    // Numbers begin a title, 'A12 parseSpiffeId() refuses …', or end it in parentheses, '… (A12, B3)'.
    for (const [, before, behind] of readFileSync(`${root}${file}`, 'utf8').matchAll(
      /['"`]((?:[ABCEFG]\d+(?:, | and )?)+)[ :]|\(((?:[ABCEFG]\d+(?:, )?)+)\)/g,
    )) {
      for (const [number] of `${before ?? ''} ${behind ?? ''}`.matchAll(/[ABCEFG]\d+/g)) {
        found.set(number, (found.get(number) ?? new Set()).add(file))
      }
    }
  }
  return new Map([...found].map(([number, files]) => [number, [...files].sort()]))
}

function conformance(problems: string[]): string {
  const tests = testsByRule()
  const [, ...lines] = readFileSync(`${root}test/conformance/rules.tsv`, 'utf8')
    .trimEnd()
    .split('\n')
  let tested = 0
  const rows = lines.map((line) => {
    const [number = '', level = '', rule = '', why = ''] = line.split('\t')
    const files = tests.get(number) ?? []
    if (files.length > 0) tested++
    if (files.length === 0 && why === '')
      problems.push(`conformance rule ${number} has neither a test nor a reason`)
    if (files.length > 0 && why !== '')
      problems.push(`conformance rule ${number} has a test and a reason for none`)
    const links = files.map((file) => `[${file.split('/').at(-1)}](../${file})`).join(', ')
    return `| ${number} | ${level} | ${rule} | ${files.length > 0 ? links : `not tested: ${why}`} |`
  })
  return `${made}

# Conformance to the SPIFFE standards

${tested} of ${lines.length} rules are proved by tests, which bear their numbers in their titles; of the others it says why not.
Sections: A SPIFFE ID, B X509-SVID, C JWT-SVID, E Workload Endpoint, F Workload API, G trust domain and bundle.

| rule | level | what | proof |
| --- | --- | --- | --- |
${rows.join('\n')}
`
}

const daemonSignals = [
  ['SIGTERM, SIGINT', 'Ends in order: calls that are under way are finished first.'],
  ['SIGHUP', 'Reads the configuration file again.'],
] as const

const daemonStatuses = [
  [0, 'All is well.'],
  [1, 'It failed and may be tried again.'],
  [2, 'Somebody has to put something right first.'],
] as const

const problems: string[] = []
const documents: Readonly<Record<string, string>> = {
  'docs/configuration.md': configuration(),
  'docs/server.schema.json': `${JSON.stringify(jsonSchema(serverConfigSchema), undefined, 2)}\n`,
  'docs/agent.schema.json': `${JSON.stringify(jsonSchema(agentConfigSchema), undefined, 2)}\n`,
  'docs/helper.schema.json': `${JSON.stringify(jsonSchema(helperConfigSchema), undefined, 2)}\n`,
  'docs/ceremony.schema.json': `${JSON.stringify(jsonSchema(ceremonySchema), undefined, 2)}\n`,
  'docs/commands.md': await commandReference(),
  'docs/man/assay.1': commandManual(await allCommands(), commonOptions),
  'docs/man/assay-server.8': daemonManual('assay-server', {
    summary: 'the authority of a trust domain',
    signals: daemonSignals,
    statuses: daemonStatuses,
  }),
  'docs/man/assay-agent.8': daemonManual('assay-agent', {
    summary: 'gives the workloads of a node their identities',
    signals: daemonSignals,
    statuses: [...daemonStatuses, [3, 'The server has banned this node.']],
  }),
  'docs/man/assay-signer.8': signerManual(),
  'docs/conformance.md': conformance(problems),
}

const check = process.argv.includes('--check')
mkdirSync(`${root}docs/man`, { recursive: true })
for (const [file, text] of Object.entries(documents)) {
  let present = ''
  try {
    present = readFileSync(`${root}${file}`, 'utf8')
  } catch {
    // It is not there yet.
  }
  if (present === text) continue
  if (check) problems.push(`${file} is not what the code says: run scripts/generate`)
  else writeFileSync(`${root}${file}`, text)
}
for (const problem of problems) console.error(problem)
if (check && problems.length > 0) process.exitCode = 1
