// A value with its interval on a line whose middle is zero.
interface Props {
  value: number;
  low: number | null;
  high: number | null;
  /** What the line's ends are: minus and plus so much. */
  reach: number;
  text: string;
  /** A band around zero inside which a change is none. */
  band?: number | null;
  kind?: string;
}

const WIDTH = 160;

export function IntervalBar({ value, low, high, reach, text, band, kind = "" }: Props) {
  const x = (at: number) => WIDTH / 2 + (Math.max(-1, Math.min(1, at / (reach || 1))) * (WIDTH - 12)) / 2;
  return (
    <span class={`interval ${kind}`}>
      <svg viewBox={`0 0 ${WIDTH} 20`} aria-hidden="true">
        {band ? <rect class="band" x={x(-band)} width={x(band) - x(-band)} y={2} height={16} rx={2} /> : null}
        <path class="zero" d={`M${WIDTH / 2} 1V19`} />
        {low !== null && high !== null && <path class="range" d={`M${x(low)} 6V14M${x(low)} 10H${x(high)}M${x(high)} 6V14`} />}
        <circle cx={x(value)} cy={10} r={4} />
      </svg>
      <span>{text}</span>
    </span>
  );
}
