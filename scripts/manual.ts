// The manual pages, in man(7) macros, from the same tables as help.
import type { Command, Option } from '#cli/command.ts'
import { exitStatuses } from '#cli/exit-status.ts'
import { detailLines, optionLabel } from '#cli/help.ts'

/** Text as roff takes it: backslashes doubled, hyphens to be copied, no line that looks like a request. */
const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\\\')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1')

function options(list: readonly Option[]): readonly string[] {
  return list.flatMap((option) => {
    const traits = [option.required ? 'required' : '', option.multiple ? 'may be repeated' : '']
    const suffix = traits.some(Boolean) ? ` (${traits.filter(Boolean).join(', ')})` : ''
    return ['.TP', `\\fB${roff(optionLabel(option))}\\fR`, roff(option.summary + suffix)]
  })
}

function section({
  name,
  summary,
  positionals,
  options: list,
  details,
}: Command): readonly string[] {
  const sentence = `${summary[0]?.toUpperCase()}${summary.slice(1)}.`
  return [
    `.SS assay ${roff(name)}${positionals === undefined ? '' : ` ${roff(positionals)}`}`,
    roff(sentence),
    ...(details === undefined ? [] : ['.PP', '.nf', ...detailLines(details).map(roff), '.fi']),
    ...options(list),
  ]
}

/** assay(1). */
export function commandManual(commands: readonly Command[], common: readonly Option[]): string {
  return [
    '.\\" Made by scripts/generate; do not edit.',
    '.TH ASSAY 1 "" "Assay" "User Commands"',
    '.SH NAME',
    'assay \\- operate an Assay server and agent',
    '.SH SYNOPSIS',
    '.B assay',
    '.I NOUN VERB',
    '[\\fIoption\\fR...]',
    '.SH DESCRIPTION',
    'Talks to assay\\-server and assay\\-agent over their sockets on this machine.',
    'Who may open a socket may use the commands that need it.',
    '.SH COMMON OPTIONS',
    ...options(common),
    '.SH COMMANDS',
    ...commands.flatMap(section),
    '.SH ENVIRONMENT',
    '.TP',
    '\\fBASSAY_SERVER_SOCKET\\fR',
    'The administration socket of the server; /run/assay/server.sock when not set.',
    '.TP',
    '\\fBSPIFFE_ENDPOINT_SOCKET\\fR',
    'The Workload API; unix:///run/assay/agent/api.sock when not set.',
    '.TP',
    '\\fBASSAY_AGENT_ADMIN_SOCKET\\fR',
    'The administration socket of the agent; /run/assay/agent\\-admin/admin.sock when not set.',
    '.SH EXIT STATUS',
    ...exitStatuses.flatMap(([status, meaning]) => ['.TP', `\\fB${status}\\fR`, roff(meaning)]),
    '.SH SEE ALSO',
    '.BR assay\\-server (8),',
    '.BR assay\\-agent (8)',
    '',
  ].join('\n')
}

/** assay-signer(8). */
export function signerManual(): string {
  return [
    '.\\" Made by scripts/generate; do not edit.',
    '.TH ASSAY-SIGNER 8 "" "Assay" "System Administration"',
    '.SH NAME',
    'assay\\-signer \\- uses the keys of an authority for its server',
    '.SH SYNOPSIS',
    '.B assay\\-signer.socket',
    '.br',
    '.B assay\\-signer@.service',
    '.SH DESCRIPTION',
    'Loads the PKCS#11 library of the HSM, reads the PIN, and signs for \\fBassay\\-server\\fR(8), which connects to',
    '\\fI/run/assay\\-signer/socket\\fR (\\fBsigner_socket_path\\fR in server.yaml). systemd starts one for each connection, as',
    'the user \\fBassay\\-signer\\fR. It opens the tokens that \\fI/etc/assay/server.yaml\\fR names and no others, whatever the',
    'server asks for, and ends when the server lets go of it.',
    '.PP',
    'What the library needs beyond the sandbox, and the credential \\fBhsm\\-pin\\fR, go into a drop\\-in:',
    '\\fBsystemctl edit assay\\-signer@.service\\fR. \\fBassay setup server \\-\\-signer service\\fR hands the PIN over from a',
    'server that started its signer itself; \\fBassay doctor server\\fR sees who has it.',
    '.SH FILES',
    '.TP',
    '\\fI/etc/assay/server.yaml\\fR',
    roff('The tokens: key_manager.pkcs11, its standby, and upstream_authority.pkcs11.'),
    '.TP',
    '\\fI/usr/share/doc/assay\\-server/examples\\fR',
    roff('Drop-ins: hsm-pin.conf, hsm-network.conf, softhsm.conf.'),
    '.SH SEE ALSO',
    '.BR assay\\-server (8),',
    '.BR assay (1)',
    '',
  ].join('\n')
}

/** assay-server(8) and assay-agent(8). */
export function daemonManual(
  name: 'assay-server' | 'assay-agent',
  {
    summary,
    signals,
    statuses,
  }: {
    readonly summary: string
    readonly signals: readonly (readonly [string, string])[]
    readonly statuses: readonly (readonly [number, string])[]
  },
): string {
  const title = roff(name)
  return [
    '.\\" Made by scripts/generate; do not edit.',
    `.TH ${name.toUpperCase()} 8 "" "Assay" "System Administration"`,
    '.SH NAME',
    `${title} \\- ${roff(summary)}`,
    '.SH SYNOPSIS',
    `.B ${title} run \\-\\-config \\fIFILE\\fR`,
    '.br',
    `.B ${title} validate \\-\\-config \\fIFILE\\fR`,
    '.SH DESCRIPTION',
    `\\fBrun\\fR serves in the foreground and logs to standard error. \\fBvalidate\\fR checks the configuration,`,
    'names every mistake with its line, and starts nothing. The keys of the file are in configuration.md.',
    '.SH SIGNALS',
    ...signals.flatMap(([signal, meaning]) => ['.TP', `\\fB${signal}\\fR`, roff(meaning)]),
    '.SH EXIT STATUS',
    ...statuses.flatMap(([status, meaning]) => ['.TP', `\\fB${status}\\fR`, roff(meaning)]),
    '.SH SEE ALSO',
    ...(name === 'assay-server' ? ['.BR assay\\-signer (8),'] : []),
    '.BR assay (1)',
    '',
  ].join('\n')
}
